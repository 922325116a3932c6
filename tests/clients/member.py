"""One member of a group, to be killed: reads a topic, commits every few messages, says what it does.

usage: member.py BROKERS GROUP TOPIC READS

Prints `assigned P..` at each assignment, `read PARTITION OFFSET` for each message and
`committed PARTITION OFFSET` behind each commit, as they happen. Behind READS messages it stays a
member and does nothing more: what it holds then, only its end sets free.
"""

import sys
import time

from confluent_kafka import Consumer

# Messages between commits.
COMMIT_EVERY = 7


def main():
    brokers, group, topic, reads = sys.argv[1:]
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 500,
        }
    )

    def assigned(_, partitions):
        print("assigned", *sorted(p.partition for p in partitions), flush=True)

    consumer.subscribe([topic], on_assign=assigned)
    count = 0
    while count < int(reads):
        message = consumer.poll(0.2)
        if message is None or message.error():
            continue
        print("read", message.partition(), message.offset(), flush=True)
        count += 1
        if count % COMMIT_EVERY == 0:
            for at in consumer.commit(asynchronous=False):
                if at.offset >= 0:
                    print("committed", at.partition, at.offset, flush=True)
    while True:
        time.sleep(60)


main()
