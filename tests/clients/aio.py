"""aiokafka: producer, consumer, groups, admin, on asyncio."""

import asyncio
import functools

import aiokafka.errors
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from suite import BROKERS, SUBJECT, case, equal, named, run

CLIENT = {"bootstrap_servers": BROKERS}


def awaited(function):
    """A coroutine with an admin client, as a case."""

    @case
    @functools.wraps(function)
    def body():
        async def main():
            admin = AIOKafkaAdminClient(**CLIENT)
            await admin.start()
            try:
                return await function(admin)
            finally:
                await admin.close()

        return asyncio.run(main())


async def topic(admin, name, partitions=1, **config):
    name = named(name)
    config = {key.replace("_", "."): value for key, value in config.items()}
    reply = await admin.create_topics([NewTopic(name, partitions, 1, topic_configs=config)])
    equal([error[1] for error in reply.topic_errors], [0], name)

    # Kafka answers before its brokers have heard of the topic.
    async def there():
        return name in await admin.list_topics()

    await until("the topic is there", there)
    return name


async def produce(topic, messages, **config):
    async with AIOKafkaProducer(**CLIENT, **config) as client:
        sent = [await client.send(topic, **message) for message in messages]
        return [await one for one in sent]


def consumer(group=None, *topics, **config):
    defaults = {
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        "group_id": group and named(group),
    }
    return AIOKafkaConsumer(*topics, **(CLIENT | defaults | config))


async def read(client, count):
    async with asyncio.timeout(30):
        return [await client.getone() for _ in range(count)]


async def until(what, happens):
    """Awaits `happens` until it gives something true."""
    try:
        async with asyncio.timeout(30):
            while not await happens():
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise AssertionError(f"not within 30 s: {what}") from error


@awaited
async def topics_are_made_listed_and_deleted(admin):
    name = await topic(admin, "aio-made", 3, retention_ms="60000")
    (described,) = await admin.describe_topics([name])
    equal(len(described["partitions"]), 3)
    again = await admin.create_topics([NewTopic(name, 3, 1)])
    equal([error[1] for error in again.topic_errors], [36], "already exists")
    await admin.create_partitions({name: NewPartitions(4)})

    async def four():
        return len((await admin.describe_topics([name]))[0]["partitions"]) == 4

    await until("four", four)
    shown = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    assert "60000" in str(shown), "retention.ms is shown"
    await admin.delete_topics([name])

    async def gone():
        return name not in await admin.list_topics()

    await until("it is gone", gone)


@awaited
async def a_message_comes_back_as_it_was_sent(admin):
    name = await topic(admin, "aio-verbatim")
    sent = [
        {"key": b"k", "value": b"v", "headers": [("h", b"1")], "timestamp_ms": 1_700_000_000_000},
        {"value": b"no key"},
        {"key": b"tombstone"},
        {"key": b"k", "value": bytes(range(256))},
    ]
    equal([m.offset for m in await produce(name, sent, acks="all")], [0, 1, 2, 3])
    async with consumer(None, name) as client:
        for got, wanted in zip(await read(client, 4), sent, strict=True):
            equal((got.key, got.value), (wanted.get("key"), wanted.get("value")))
            equal(list(got.headers), wanted.get("headers", []))
            equal(got.timestamp == 1_700_000_000_000, "timestamp_ms" in wanted)


@awaited
async def every_compression(admin):
    name = await topic(admin, "aio-compressed")
    wanted = []
    for kind in [None, "gzip", "snappy", "lz4", "zstd"]:
        values = [f"{kind} {i} ".encode() + b"x" * 500 for i in range(100)]
        await produce(name, [{"value": v} for v in values], compression_type=kind, linger_ms=50)
        wanted += values
    async with consumer(None, name) as client:
        equal([m.value for m in await read(client, 500)] == wanted, True)


@awaited
async def large_messages(admin):
    name = await topic(admin, "aio-large")
    await produce(name, [{"value": b"x" * 900_000}] * 3, max_request_size=1_000_000)
    async with consumer(None, name) as client:
        equal([len(m.value) for m in await read(client, 3)], [900_000] * 3)


@awaited
async def an_idempotent_producer(admin):
    name = await topic(admin, "aio-idempotent")
    sent = [{"value": str(i).encode()} for i in range(300)]
    await produce(name, sent, enable_idempotence=True)
    async with consumer(None, name) as client:
        equal([int(m.value) for m in await read(client, 300)], list(range(300)))


@awaited
async def a_group_commits_and_goes_on(admin):
    name = await topic(admin, "aio-group", 2)
    await produce(name, [{"value": str(i).encode(), "partition": i % 2} for i in range(40)])
    async with consumer("aio-group", name) as client:
        await read(client, 40)
        await client.commit()
        committed = [await client.committed(TopicPartition(name, p)) for p in range(2)]
        equal(sum(committed), 40)
    await produce(name, [{"value": b"later"}] * 5)
    async with consumer("aio-group", name) as client:
        equal({m.value for m in await read(client, 5)}, {b"later"})


@awaited
async def two_members_share_the_partitions(admin):
    name = await topic(admin, "aio-members", 4)
    config = {"heartbeat_interval_ms": 500, "session_timeout_ms": 10000}
    async with consumer("aio-members", name, **config) as first:
        async with consumer("aio-members", name, **config) as second:

            async def shared():
                return [len(m.assignment()) for m in (first, second)] == [2, 2]

            await until("two each", shared)
            equal({p.partition for m in (first, second) for p in m.assignment()}, {0, 1, 2, 3})

        async def alone():
            return len(first.assignment()) == 4

        await until("one has all", alone)


@awaited
async def seeking_and_offsets_by_time(admin):
    name = await topic(admin, "aio-seek")
    start = 1_700_000_000_000
    sent = [{"value": str(i).encode(), "timestamp_ms": start + i * 1000} for i in range(100)]
    await produce(name, sent, linger_ms=200)
    partition = TopicPartition(name, 0)
    async with consumer() as client:
        client.assign([partition])
        equal(await client.beginning_offsets([partition]), {partition: 0})
        equal(await client.end_offsets([partition]), {partition: 100})
        for at, offset in [(0, 0), (50_000, 50), (50_001, 51)]:
            found = await client.offsets_for_times({partition: start + at})
            equal(found[partition].offset, offset)
        equal(await client.offsets_for_times({partition: start + 10**8}), {partition: None})
        client.seek(partition, 95)
        equal([m.offset for m in await read(client, 5)], list(range(95, 100)))
        await client.seek_to_beginning(partition)
        equal((await read(client, 1))[0].offset, 0)


@awaited
async def groups_and_records_are_administered(admin):
    name, group = await topic(admin, "aio-admin"), named("aio-admin")
    await produce(name, [{"value": str(i).encode()} for i in range(20)])
    async with consumer("aio-admin", name) as client:
        await read(client, 20)
        await client.commit()
        assert group in {found[0] for found in await admin.list_consumer_groups()}
        (described,) = (await admin.describe_consumer_groups([group]))[0].groups
        equal((described[1], described[2], len(described[5])), (group, "Stable", 1))
    partition = TopicPartition(name, 0)
    offsets = await admin.list_consumer_group_offsets(group)
    equal(offsets[partition].offset, 20)
    equal(await admin.delete_records({partition: RecordsToDelete(7)}), {partition: 7})
    async with consumer(None, name) as client:
        equal((await read(client, 13))[0].offset, 7)


@awaited
async def transactions_are_left_to_kafka(admin):
    name = await topic(admin, "aio-transaction")
    client = AIOKafkaProducer(**CLIENT, transactional_id=named("aio-transaction"))
    try:
        async with asyncio.timeout(15):
            await client.start()
            async with client.transaction():
                await client.send_and_wait(name, b"v")
    except aiokafka.errors.KafkaError as error:
        assert SUBJECT == "falaj", repr(error)
        return type(error).__name__
    finally:
        await client.stop()
    assert SUBJECT == "kafka", "it was accepted"
    return "Kafka has them"


run()
