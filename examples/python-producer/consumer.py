"""Reads the Kafka topic `messages` from its start and prints each message, until Ctrl-C.

    pip install confluent-kafka
    python consumer.py
"""

import json
import os

from confluent_kafka import Consumer

BROKERS = os.environ.get("KAFKA_BROKERS", "localhost:9092")
TOPIC = "messages"


def main():
    consumer = Consumer(
        {
            "bootstrap.servers": BROKERS,
            "group.id": "my-group",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([TOPIC])
    try:
        while True:
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error():
                print(f"error: {message.error()}")
                continue
            user = json.loads(message.value())
            print(f"received {message.key().decode()}: {user['nat']}, {user['dob']['age']} years old")
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()


if __name__ == "__main__":
    main()
