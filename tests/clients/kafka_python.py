"""kafka-python: producer, consumer, groups, admin, in pure Python."""

import threading
import time

import kafka.errors
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic, OffsetSpec

from suite import BROKERS, SUBJECT, case, equal, named, run, until

CLIENT = {"bootstrap_servers": BROKERS}
# Longest wait of one poll. A poll that ends while this client joins a group may leave it outside
# for good (3.0.12, seen with 100 ms at Kafka itself), so it is longer than a join takes.
POLL_MS = 3000
admin = KafkaAdminClient(**CLIENT)


def topic(name, partitions=1, **config):
    name = named(name)
    config = {key.replace("_", "."): value for key, value in config.items()}
    admin.create_topics([NewTopic(name, partitions, 1, topic_configs=config)])
    # Kafka answers before its brokers have heard of the topic.
    until("the topic is there", lambda: name in admin.list_topics())
    return name


def produce(topic, messages, **config):
    """Produces dicts of `KafkaProducer.send` arguments."""
    client = KafkaProducer(**CLIENT, **config)
    sent = [client.send(topic, **message) for message in messages]
    results = [future.get(timeout=30) for future in sent]
    client.close()
    return results


def consumer(group=None, *topics, **config):
    defaults = {
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        "group_id": group and named(group),
    }
    return KafkaConsumer(*topics, **(CLIENT | defaults | config))


def read(client, count):
    records = []

    def enough():
        for batch in client.poll(timeout_ms=POLL_MS).values():
            records.extend(batch)
        return len(records) >= count

    until(f"{count} messages", enough)
    equal(len(records), count)
    return records


@case
def topics_are_made_listed_and_deleted():
    name = topic("py-made", 3, retention_ms="60000")
    (described,) = admin.describe_topics([name])
    equal(len(described["partitions"]), 3)
    try:
        topic("py-made", 3)
    except kafka.errors.TopicAlreadyExistsError:
        pass
    else:
        raise AssertionError("it was accepted")
    admin.create_partitions({name: NewPartitions(4)})
    until("four", lambda: len(admin.describe_topics([name])[0]["partitions"]) == 4)
    resource = ConfigResource(ConfigResourceType.TOPIC, name)
    assert "60000" in str(admin.describe_configs([resource])), "retention.ms is shown"
    admin.delete_topics([name])
    until("it is gone", lambda: name not in admin.list_topics())


@case
def a_message_comes_back_as_it_was_sent():
    name = topic("py-verbatim")
    sent = [
        {"key": b"k", "value": b"v", "headers": [("h", b"1")], "timestamp_ms": 1_700_000_000_000},
        {"value": b"no key"},
        {"key": b"tombstone"},
        {"key": b"k", "value": bytes(range(256))},
    ]
    offsets = [m.offset for m in produce(name, sent, acks="all")]
    equal(offsets, [0, 1, 2, 3])
    client = consumer(None, name)
    for got, wanted in zip(read(client, 4), sent, strict=True):
        equal((got.key, got.value), (wanted.get("key"), wanted.get("value")))
        equal([tuple(h) for h in got.headers], wanted.get("headers", []))
        equal(got.timestamp == 1_700_000_000_000, "timestamp_ms" in wanted)
    client.close()


@case
def every_compression():
    name = topic("py-compressed")
    kinds = [None, "gzip", "snappy", "lz4", "zstd"]
    wanted = []
    for kind in kinds:
        values = [f"{kind} {i} ".encode() + b"x" * 500 for i in range(100)]
        produce(name, [{"value": v} for v in values], compression_type=kind, linger_ms=50)
        wanted += values
    client = consumer(None, name)
    equal([m.value for m in read(client, 500)] == wanted, True)
    client.close()


@case
def large_messages():
    name = topic("py-large")
    produce(name, [{"value": b"x" * 900_000}] * 3)
    client = consumer(None, name)
    equal([len(m.value) for m in read(client, 3)], [900_000] * 3)
    client.close()


@case
def an_idempotent_producer():
    name = topic("py-idempotent")
    produce(name, [{"value": str(i).encode()} for i in range(300)], enable_idempotence=True)
    client = consumer(None, name)
    equal([int(m.value) for m in read(client, 300)], list(range(300)))
    client.close()


@case
def a_group_commits_and_goes_on():
    name = topic("py-group", 2)
    produce(name, [{"value": str(i).encode(), "partition": i % 2} for i in range(40)])
    client = consumer("py-group", name)
    read(client, 40)
    client.commit()
    equal(sum(client.committed(TopicPartition(name, p)) for p in range(2)), 40)
    client.close()
    produce(name, [{"value": b"later"}] * 5)
    client = consumer("py-group", name)
    equal({m.value for m in read(client, 5)}, {b"later"})
    client.close()


@case
def two_members_share_the_partitions():
    name = topic("py-members", 4)
    config = {"heartbeat_interval_ms": 500, "session_timeout_ms": 10000}
    members = [consumer("py-members", name, **config) for _ in range(2)]
    stop = threading.Event()

    def take_part(member):
        while not stop.is_set():
            member.poll(timeout_ms=POLL_MS)
        member.close()

    threads = [threading.Thread(target=take_part, args=(m,), daemon=True) for m in members]
    for thread in threads:
        thread.start()
    held = lambda: [{p.partition for p in member.assignment()} for member in members]
    until("two each", lambda: [len(h) for h in held()] == [2, 2] or time.sleep(0.1), 45)
    equal(set.union(*held()), {0, 1, 2, 3})
    stop.set()
    for thread in threads:
        thread.join()


@case
def seeking_and_offsets_by_time():
    name = topic("py-seek")
    start = 1_700_000_000_000
    sent = [{"value": str(i).encode(), "timestamp_ms": start + i * 1000} for i in range(100)]
    produce(name, sent, linger_ms=200)
    partition = TopicPartition(name, 0)
    client = consumer()
    client.assign([partition])
    equal(client.beginning_offsets([partition]), {partition: 0})
    equal(client.end_offsets([partition]), {partition: 100})
    for at, offset in [(0, 0), (50_000, 50), (50_001, 51)]:
        equal(client.offsets_for_times({partition: start + at})[partition].offset, offset)
    equal(client.offsets_for_times({partition: start + 10**8}), {partition: None})
    client.seek(partition, 95)
    equal([m.offset for m in read(client, 5)], list(range(95, 100)))
    client.seek_to_beginning()
    until("it starts over", lambda: client.position(partition) == 0)
    client.close()
    latest = admin.list_partition_offsets({partition: OffsetSpec.LATEST})
    equal(latest[partition].offset, 100)


@case
def groups_and_records_are_administered():
    name, group = topic("py-admin"), named("py-admin")
    produce(name, [{"value": str(i).encode()} for i in range(20)])
    client = consumer("py-admin", name)
    read(client, 20)
    client.commit()
    assert group in {g["group_id"] for g in admin.list_groups()}
    described = admin.describe_groups([group])[group]
    equal((described["group_state"], len(described["members"])), ("Stable", 1))
    client.close()
    partition = TopicPartition(name, 0)
    equal(admin.list_group_offsets([group])[group][partition].offset, 20)
    equal(admin.delete_records({partition: 7})[partition]["low_watermark"], 7)
    client = consumer(None, name)
    equal(read(client, 13)[0].offset, 7)
    client.close()
    admin.delete_groups([group])
    until("it is gone", lambda: group not in {g["group_id"] for g in admin.list_groups()})


@case
def transactions_are_left_to_kafka():
    name = topic("py-transaction")
    client = KafkaProducer(**CLIENT, transactional_id=named("py-transaction"), max_block_ms=10_000)
    if SUBJECT == "falaj":
        try:
            client.init_transactions()
        except kafka.errors.KafkaTimeoutError as error:
            raise AssertionError("it waits instead of saying so") from error
        except kafka.errors.KafkaError as error:
            return type(error).__name__
        raise AssertionError("it was accepted")
    client.init_transactions()
    client.begin_transaction()
    client.send(name, b"v").get(timeout=30)
    client.commit_transaction()
    client.close()
    return "Kafka has them"


run()
