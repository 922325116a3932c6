"""confluent-kafka (librdkafka): producer, consumer, groups, admin."""

import time

from confluent_kafka import (
    OFFSET_END,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from suite import BROKERS, SUBJECT, case, equal, named, run, until

CLIENT = {"bootstrap.servers": BROKERS, "log_level": 2}
admin = AdminClient(CLIENT)


def done(futures):
    """The results of an admin call, an exception where one failed."""
    return {name: future.result(timeout=30) for name, future in futures.items()}


def one(futures):
    (result,) = done(futures).values()
    return result


def refused(call, *codes):
    """Runs `call`, which must fail by one of Kafka's error codes."""
    try:
        call()
    except KafkaException as error:
        code = error.args[0].code()
        assert code in codes, f"{error.args[0].name()}: {error.args[0].str()}"
        return error.args[0]
    raise AssertionError("it was accepted")


def topic(name, partitions=1, **config):
    name = named(name)
    config = {key.replace("_", "."): value for key, value in config.items()}
    done(admin.create_topics([NewTopic(name, partitions, 1, config=config)]))
    # Kafka answers before its brokers have heard of the topic.
    until("the topic is there", lambda: name in admin.list_topics(timeout=10).topics)
    return name


def producer(**config):
    return Producer(CLIENT | {key.replace("_", "."): value for key, value in config.items()})


def produce(topic, messages, client=None):
    """Produces dicts of `Producer.produce` arguments; gives the offsets by partition."""
    client = client or producer()
    offsets, errors = {}, []

    def acknowledged(error, message):
        if error:
            errors.append(error)
        else:
            offsets.setdefault(message.partition(), []).append(message.offset())

    for message in messages:
        client.produce(topic, on_delivery=acknowledged, **message)
        client.poll(0)
    left = client.flush(30)
    assert not errors and not left, f"{errors[:2]}, {left} in the queue"
    return offsets


def consumer(group, **config):
    config = {key.replace("_", "."): value for key, value in config.items()}
    return Consumer(
        CLIENT
        | {"group.id": named(group), "auto.offset.reset": "earliest", "enable.auto.commit": False}
        | config
    )


def read(client, count, seconds=30):
    """`count` messages; an assertion where they do not come."""
    messages = []
    end = time.monotonic() + seconds
    while len(messages) < count:
        message = client.poll(0.2)
        if message is None:
            assert time.monotonic() < end, f"{len(messages)} of {count} messages"
        elif message.error():
            raise KafkaException(message.error())
        else:
            messages.append(message)
    return messages


def nothing(client, seconds=1.5):
    message = client.poll(seconds)
    assert message is None, f"offset {message.offset()}: {message.error()}"


def read_all(topic, count):
    """`count` messages of a topic from its start, by assignment, and that there are no more."""
    client = consumer("reader")
    partitions = admin.list_topics(topic, timeout=10).topics[topic].partitions
    client.assign([TopicPartition(topic, p, 0) for p in partitions])
    messages = read(client, count)
    nothing(client, 0.3)
    client.close()
    return messages


def ends(topic, partition=0):
    client = consumer("ends")
    watermarks = client.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
    client.close()
    return watermarks


@case
def topics_are_made_listed_described_and_deleted():
    name = topic("made", 3, retention_ms="60000")
    equal(len(admin.list_topics(name, timeout=10).topics[name].partitions), 3)
    described = one(admin.describe_topics(TopicCollection([name])))
    equal([p.leader is not None for p in described.partitions], [True] * 3)
    refused(lambda: topic("made", 3), KafkaError.TOPIC_ALREADY_EXISTS)
    bad = [NewTopic("not/a/name", 1, 1)]
    refused(lambda: done(admin.create_topics(bad)), KafkaError.TOPIC_EXCEPTION)
    none = [NewTopic(named("none"), 0, 1)]
    refused(lambda: done(admin.create_topics(none)), KafkaError.INVALID_PARTITIONS)
    three = [NewTopic(named("three"), 1, 3)]
    refused(lambda: done(admin.create_topics(three)), KafkaError.INVALID_REPLICATION_FACTOR)
    done(admin.create_topics([NewTopic(named("tried"), 1, 1)], validate_only=True))
    assert named("tried") not in admin.list_topics(timeout=10).topics
    done(admin.delete_topics([name]))
    until("the topic is gone", lambda: name not in admin.list_topics(timeout=10).topics)
    again = lambda: done(admin.delete_topics([name]))
    refused(again, KafkaError.UNKNOWN_TOPIC_OR_PART)


@case
def the_cluster_is_described():
    cluster = admin.describe_cluster().result(timeout=30)
    assert cluster.cluster_id and len(cluster.nodes) == 1, cluster.nodes
    equal(f"{cluster.nodes[0].host}:{cluster.nodes[0].port}", BROKERS)


@case
def a_topic_is_made_by_the_first_message():
    name = named("unasked")
    produce(name, [{"value": b"first"}])
    equal([m.value() for m in read_all(name, 1)], [b"first"])


@case
def a_topic_that_nobody_made_is_an_error_where_none_shall_be_made():
    client = consumer("absent")
    client.subscribe([named("absent")])
    unknown = KafkaError.UNKNOWN_TOPIC_OR_PART
    refused(lambda: read(client, 1), unknown, KafkaError._UNKNOWN_TOPIC)
    client.close()


@case
def a_message_comes_back_as_it_was_sent():
    name = topic("verbatim")
    now = int(time.time() * 1000) - 5000
    sent = [
        {"key": b"k", "value": b"v", "headers": [("h", b"1"), ("h", b"2"), ("empty", b""), ("null", None)]},
        {"key": None, "value": b"no key"},
        {"key": b"tombstone", "value": None},
        {"key": b"", "value": b""},
        {"key": "schlüssel".encode(), "value": bytes(range(256))},
    ]
    produce(name, [message | {"timestamp": now + i} for i, message in enumerate(sent)])
    for i, (got, wanted) in enumerate(zip(read_all(name, 5), sent, strict=True)):
        equal((got.key(), got.value()), (wanted["key"], wanted["value"]), i)
        equal(got.headers() or [], wanted.get("headers", []), i)
        equal(got.timestamp()[1], now + i, i)


@case
def order_holds_within_each_partition():
    name = topic("order", 4)
    produce(name, [{"key": f"k{i % 50}", "value": str(i)} for i in range(2000)])
    newest, offsets = {}, {}
    for message in read_all(name, 2000):
        at = message.partition()
        equal(message.offset(), offsets.get(at, 0), at)
        offsets[at] = message.offset() + 1
        value = int(message.value())
        assert newest.get(message.key(), -1) < value, "the order of a key"
        newest[message.key()] = value
    assert len(offsets) == 4, "keys spread over the partitions"


@case
def acknowledgements_none_one_and_all():
    name = topic("acks")
    for acks in ("0", "1", "all"):
        produce(name, [{"value": acks}] * 10, producer(acks=acks))
    # Nobody said that those of acks=0 are there when flush ends; they come all the same.
    equal(sorted({m.value() for m in read_all(name, 30)}), [b"0", b"1", b"all"])


@case
def every_compression():
    name = topic("compressed")
    kinds = ("none", "gzip", "snappy", "lz4", "zstd")
    for kind in kinds:
        client = producer(compression_type=kind, linger_ms=100)
        produce(name, [{"value": f"{kind} {i} " + "x" * 500} for i in range(200)], client)
    wanted = [f"{kind} {i} " + "x" * 500 for kind in kinds for i in range(200)]
    equal([m.value().decode() for m in read_all(name, 1000)] == wanted, True)


@case
def an_idempotent_producer():
    name = topic("idempotent", 2)
    client = producer(enable_idempotence=True)
    produce(name, [{"key": str(i), "value": str(i)} for i in range(1000)], client)
    equal(sorted(int(m.value()) for m in read_all(name, 1000)), list(range(1000)))


@case
def large_messages():
    name = topic("large")
    body = bytes(range(256)) * 3516
    produce(name, [{"value": body}] * 3)
    equal([len(m.value()) for m in read_all(name, 3)], [900_096] * 3)
    client = producer(message_max_bytes=8_000_000)
    try:
        produce(name, [{"value": b"x" * 4_000_000}], client)
    except AssertionError as error:
        assert "MSG_SIZE_TOO_LARGE" in str(error), error
    else:
        raise AssertionError("a message of 4 MB was accepted")
    equal(ends(name), (0, 3))


@case
def reading_starts_inside_a_batch():
    name = topic("inside")
    # One batch of a hundred.
    produce(name, [{"value": str(i)} for i in range(100)], producer(linger_ms=500))
    equal(ends(name), (0, 100))
    client = consumer("inside")
    client.assign([TopicPartition(name, 0, 50)])
    equal([m.offset() for m in read(client, 50)], list(range(50, 100)))
    client.seek(TopicPartition(name, 0, 5))
    equal(read(client, 1)[0].offset(), 5)
    client.commit(offsets=[TopicPartition(name, 0, 70)], asynchronous=False)
    client.close()
    client = consumer("inside")
    client.subscribe([name])
    equal([m.offset() for m in read(client, 30)], list(range(70, 100)))
    client.close()


@case
def a_consumer_at_the_end_sees_what_comes():
    name = topic("end")
    produce(name, [{"value": b"old"}] * 10)
    client = consumer("end")
    client.assign([TopicPartition(name, 0, OFFSET_END)])
    nothing(client)
    produce(name, [{"value": b"new"}])
    equal([(m.offset(), m.value()) for m in read(client, 1)], [(10, b"new")])
    client.close()


@case
def an_offset_that_is_not_there_resets_as_configured():
    name = topic("range")
    produce(name, [{"value": str(i)} for i in range(10)])
    client = consumer("range-earliest")
    client.assign([TopicPartition(name, 0, 999)])
    equal(read(client, 1)[0].offset(), 0)
    client.close()
    client = consumer("range-error", auto_offset_reset="error")
    client.assign([TopicPartition(name, 0, 999)])
    refused(lambda: read(client, 1), KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
    client.close()


@case
def a_group_goes_on_where_it_committed():
    name = topic("group", 3)
    produce(name, [{"key": str(i), "value": str(i)} for i in range(300)])
    client = consumer("group")
    client.subscribe([name])
    read(client, 300)
    client.commit(asynchronous=False)
    partitions = [TopicPartition(name, p) for p in range(3)]
    equal(sum(p.offset for p in client.committed(partitions, timeout=10)), 300)
    client.close()
    produce(name, [{"value": b"later"}] * 30)
    client = consumer("group")
    client.subscribe([name])
    equal({m.value() for m in read(client, 30)}, {b"later"})
    nothing(client)
    client.close()


@case
def closing_commits_automatically():
    name = topic("auto")
    produce(name, [{"value": str(i)} for i in range(20)])
    client = consumer("auto", enable_auto_commit=True)
    client.subscribe([name])
    read(client, 20)
    client.close()
    client = consumer("auto")
    equal(client.committed([TopicPartition(name, 0)], timeout=10)[0].offset, 20)
    client.close()


@case
def groups_rebalance_under_every_strategy():
    for strategy in ("range,roundrobin", "roundrobin", "cooperative-sticky"):
        kind = strategy.replace(",", "-")
        name = topic(f"rebalance-{kind}", 4)
        produce(name, [{"key": str(i), "value": str(i)} for i in range(100)])
        config = {"partition_assignment_strategy": strategy, "heartbeat_interval_ms": 500}
        first, second = (consumer(f"rebalance-{kind}", **config) for _ in range(2))
        first.subscribe([name])
        read(first, 100)
        second.subscribe([name])

        def shared():
            first.poll(0.1), second.poll(0.1)
            return len(first.assignment()), len(second.assignment())

        until(f"{strategy}: two each", lambda: shared() == (2, 2))
        taken = {p.partition for c in (first, second) for p in c.assignment()}
        equal(taken, {0, 1, 2, 3}, strategy)
        second.close()
        until(f"{strategy}: one has all", lambda: first.poll(0.1) or len(first.assignment()) == 4)
        first.close()


@case
def a_static_member_comes_back_to_its_partitions():
    name = topic("static", 4)
    config = {"heartbeat_interval_ms": 500, "session_timeout_ms": 10000}
    members = [consumer("static", group_instance_id=f"m{i}", **config) for i in range(2)]
    for member in members:
        member.subscribe([name])

    def shared():
        return [m.poll(0.1) for m in members] and [len(m.assignment()) for m in members] == [2, 2]

    until("two each", shared)
    held = sorted(p.partition for p in members[1].assignment())
    # A static member says nothing when it leaves: its place is kept for the session's time-out.
    members[1].close()
    members[0].poll(1)
    equal(len(members[0].assignment()), 2, "the other keeps its own")
    members[1] = consumer("static", group_instance_id="m1", **config)
    members[1].subscribe([name])
    until("it is back", lambda: members[0].poll(0.1) or members[1].poll(0.1) or members[1].assignment())
    equal(sorted(p.partition for p in members[1].assignment()), held)
    for member in members:
        member.close()


@case
def offsets_by_time():
    name = topic("times")
    start = int(time.time() * 1000) - 3_600_000
    messages = [{"value": str(i), "timestamp": start + i * 1000} for i in range(100)]
    produce(name, messages)
    client = consumer("times")
    for at, offset in [(0, 0), (50_000, 50), (50_001, 51), (10**8, -1)]:
        asked = [TopicPartition(name, 0, start + at)]
        equal(client.offsets_for_times(asked, timeout=10)[0].offset, offset, at)
    client.close()
    for spec, offset in [
        (OffsetSpec.earliest(), 0),
        (OffsetSpec.latest(), 100),
        (OffsetSpec.max_timestamp(), 99),
        (OffsetSpec.for_timestamp(start + 7000), 7),
    ]:
        equal(one(admin.list_offsets({TopicPartition(name, 0): spec})).offset, offset, spec)


@case
def partitions_are_added():
    name = topic("grown", 2)
    done(admin.create_partitions([NewPartitions(name, 4)]))
    count = lambda: len(admin.list_topics(name, timeout=10).topics[name].partitions)
    until("four partitions", lambda: count() == 4)
    produce(name, [{"value": b"v", "partition": 3}])
    fewer = lambda: done(admin.create_partitions([NewPartitions(name, 3)]))
    refused(fewer, KafkaError.INVALID_PARTITIONS)


@case
def settings_are_shown_and_changed():
    name = topic("settings", retention_ms="60000", cleanup_policy="compact")
    shown = lambda: one(admin.describe_configs([ConfigResource(ResourceType.TOPIC, name)]))
    equal((shown()["retention.ms"].value, shown()["cleanup.policy"].value), ("60000", "compact"))

    def change(key, value, operation):
        entry = ConfigEntry(key, value, incremental_operation=operation)
        change = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
        return done(admin.incremental_alter_configs([change]))

    change("retention.ms", "5000", AlterConfigOpType.SET)
    until("it is changed", lambda: shown()["retention.ms"].value == "5000")
    change("retention.ms", None, AlterConfigOpType.DELETE)
    until("Kafka's default", lambda: shown()["retention.ms"].value == "604800000")
    change("cleanup.policy", "delete", AlterConfigOpType.APPEND)
    both = {"compact", "delete"}
    until("both policies", lambda: set(shown()["cleanup.policy"].value.split(",")) == both)
    wrong = lambda key, value: lambda: change(key, value, AlterConfigOpType.SET)
    refused(wrong("retention.ms", "soon"), KafkaError.INVALID_CONFIG)
    refused(wrong("no.such.setting", "1"), KafkaError.INVALID_CONFIG)
    bad = [NewTopic(named("bad"), 1, 1, config={"cleanup.policy": "sometimes"})]
    refused(lambda: done(admin.create_topics(bad)), KafkaError.INVALID_CONFIG)
    (node,) = admin.list_topics(timeout=10).brokers
    broker = one(admin.describe_configs([ConfigResource(ResourceType.BROKER, str(node))]))
    assert broker, "a broker has settings"


@case
def a_compacted_topic_wants_keys():
    name = topic("compacted", cleanup_policy="compact")
    try:
        produce(name, [{"value": b"no key"}])
    except AssertionError as error:
        assert "INVALID_RECORD" in str(error), error
    else:
        raise AssertionError("a message without a key was accepted")
    produce(name, [{"key": b"k", "value": b"v"}])


@case
def records_are_deleted():
    name = topic("deleted")
    produce(name, [{"value": str(i)} for i in range(100)])
    deleted = one(admin.delete_records([TopicPartition(name, 0, 40)]))
    equal(deleted.low_watermark, 40)
    equal(ends(name), (40, 100))
    client = consumer("deleted")
    client.subscribe([name])
    equal([m.offset() for m in read(client, 60)], list(range(40, 100)))
    client.close()
    beyond = lambda: one(admin.delete_records([TopicPartition(name, 0, 101)]))
    refused(beyond, KafkaError.OFFSET_OUT_OF_RANGE)
    equal(one(admin.delete_records([TopicPartition(name, 0, OFFSET_END)])).low_watermark, 100)
    equal(ends(name), (100, 100))


@case
def groups_are_listed_described_moved_and_deleted():
    name, group = topic("groups", 2), named("groups")
    produce(name, [{"value": str(i), "partition": i % 2} for i in range(20)])
    client = consumer("groups")
    client.subscribe([name])
    read(client, 20)
    client.commit(asynchronous=False)

    listed = admin.list_consumer_groups(request_timeout=10).result()
    assert not listed.errors and group in {g.group_id for g in listed.valid}
    described = one(admin.describe_consumer_groups([group]))
    (member,) = described.members
    equal((described.state.name, described.partition_assignor), ("STABLE", "range"))
    equal(sorted(p.partition for p in member.assignment.topic_partitions), [0, 1])
    refused(lambda: done(admin.delete_consumer_groups([group])), KafkaError.NON_EMPTY_GROUP)
    to = [TopicPartition(name, 0, 3)]

    def move():
        request = [ConsumerGroupTopicPartitions(group, to)]
        (moved,) = one(admin.alter_consumer_group_offsets(request)).topic_partitions
        return moved.error and moved.error.name()

    equal(move(), "UNKNOWN_MEMBER_ID", "only an empty group's offsets can be moved")
    client.close()

    equal(one(admin.describe_consumer_groups([group])).state.name, "EMPTY")
    equal(move(), None)
    asked = [ConsumerGroupTopicPartitions(group)]
    offsets = one(admin.list_consumer_group_offsets(asked)).topic_partitions
    equal({p.partition: p.offset for p in offsets}, {0: 3, 1: 10})
    done(admin.delete_consumer_groups([group]))
    listed = admin.list_consumer_groups(request_timeout=10).result().valid
    assert group not in {g.group_id for g in listed}
    gone = lambda: done(admin.delete_consumer_groups([group]))
    refused(gone, KafkaError.GROUP_ID_NOT_FOUND)


@case
def transactions_are_left_to_kafka():
    name = topic("transaction")
    client = producer(transactional_id=named("transaction"))
    begun = lambda: client.init_transactions(20)
    if SUBJECT == "falaj":
        started = time.monotonic()
        error = refused(
            begun,
            KafkaError._UNSUPPORTED_FEATURE,
            KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            KafkaError.UNSUPPORTED_VERSION,
        )
        assert time.monotonic() - started < 15, "it says so instead of waiting"
        equal(ends(name), (0, 0))
        return error.name()
    begun()
    client.begin_transaction()
    client.produce(name, b"v")
    client.commit_transaction(20)
    equal([m.value() for m in read_all(name, 1)], [b"v"])
    return "Kafka has them"


@case
def the_new_group_protocol_is_left_to_kafka():
    name = topic("protocol")
    produce(name, [{"value": b"v"}])
    client = Consumer(
        CLIENT
        | {"group.id": named("protocol"), "group.protocol": "consumer", "auto.offset.reset": "earliest"}
    )
    client.subscribe([name])
    if SUBJECT == "falaj":
        error = refused(lambda: read(client, 1), KafkaError._FATAL)
        assert "API version not supported" in error.str(), error.str()
        said = error.name()
    else:
        read(client, 1)
        said = "Kafka has it"
    client.close()
    return said


run()
