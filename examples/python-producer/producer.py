"""Gets users from the Random User API and sends each to the Kafka topic `messages`.

    pip install confluent-kafka requests
    python producer.py
"""

import json
import os

import requests
from confluent_kafka import Producer

API = os.environ.get("RANDOM_USER_API", "https://randomuser.me/api/")
BROKERS = os.environ.get("KAFKA_BROKERS", "localhost:9092")
TOPIC = "messages"


def delivered(error, message):
    if error is not None:
        print(f"not delivered: {error}")
    else:
        print(f"delivered to {message.topic()} [{message.partition()}] at offset {message.offset()}")


def main():
    producer = Producer({"bootstrap.servers": BROKERS})
    reply = requests.get(API, params={"results": 10}, timeout=30)
    reply.raise_for_status()
    for user in reply.json()["results"]:
        key = user["login"]["uuid"]
        producer.produce(TOPIC, key=key, value=json.dumps(user), callback=delivered)
        producer.poll(0)
    producer.flush()


if __name__ == "__main__":
    main()
