"""Logging in over TLS: every mechanism with every Python client, and what must not get in.

Environment: AUTHORITY (PEM file), LOGIN (name and password, separated by a blank).
"""

import asyncio
import os
import ssl

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from kafka import KafkaConsumer, KafkaProducer

from suite import BROKERS, case, equal, named, run, until

AUTHORITY = os.environ["AUTHORITY"]
NAME, PASSWORD = os.environ["LOGIN"].split()
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


def confluent(mechanism="PLAIN", **config):
    config = {key.replace("_", "."): value for key, value in config.items()}
    return {
        "bootstrap.servers": BROKERS,
        "log_level": 0,
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": AUTHORITY,
        "sasl.mechanism": mechanism,
        "sasl.username": NAME,
        "sasl.password": PASSWORD,
    } | config


def python(mechanism, password=PASSWORD):
    return {
        "bootstrap_servers": BROKERS,
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": mechanism,
        "sasl_plain_username": NAME,
        "sasl_plain_password": password,
    }


@case
def confluent_kafka_logs_in_and_works():
    for mechanism in MECHANISMS:
        name = named(f"confluent-{mechanism}")
        producer = Producer(confluent(mechanism))
        producer.produce(name, b"v")
        equal(producer.flush(30), 0, mechanism)
        group = {"group_id": name, "auto_offset_reset": "earliest"}
        consumer = Consumer(confluent(mechanism, **group))
        consumer.subscribe([name])
        equal(until(mechanism, lambda: consumer.poll(0.2)).value(), b"v", mechanism)
        consumer.close()


@case
def who_does_not_log_in_rightly_gets_nothing():
    attempts = []
    for m in MECHANISMS:
        attempts += [
            (f"a wrong password, {m}", {"sasl_mechanism": m, "sasl_password": "guessed"}),
            (f"a name that nobody has, {m}", {"sasl_mechanism": m, "sasl_username": "nobody"}),
        ]
    attempts += [
        ("no login", {"security_protocol": "SSL"}),
        ("no TLS", {"security_protocol": "SASL_PLAINTEXT"}),
        ("neither", {"security_protocol": "PLAINTEXT"}),
        # Here it is the client that turns away.
        ("an authority that nobody knows", {"ssl_ca_location": "probe"}),
    ]
    for what, wrong in attempts:
        try:
            AdminClient(confluent(**wrong)).list_topics(timeout=1)
        except KafkaException:
            continue
        raise AssertionError(f"{what} was accepted")


@case
def a_wrong_password_is_told():
    for mechanism in MECHANISMS:
        said = []
        wrong = confluent(mechanism, sasl_password="guessed")
        admin = AdminClient(wrong | {"error_cb": lambda error: said.append(error.name())})
        until(f"{mechanism}: {said}", lambda: admin.poll(0.1) or "_AUTHENTICATION" in said)


@case
def kafka_python_logs_in_and_works():
    for mechanism in MECHANISMS:
        name = named(f"python-{mechanism}")
        config = python(mechanism) | {"ssl_cafile": AUTHORITY}
        producer = KafkaProducer(**config)
        producer.send(name, b"v").get(timeout=30)
        producer.close()
        consumer = KafkaConsumer(name, auto_offset_reset="earliest", group_id=name, **config)
        equal(next(consumer).value, b"v", mechanism)
        consumer.close()


@case
def aiokafka_logs_in_and_works():
    context = ssl.create_default_context(cafile=AUTHORITY)

    async def main():
        for mechanism in MECHANISMS:
            name = named(f"aio-{mechanism}")
            config = python(mechanism) | {"ssl_context": context}
            async with AIOKafkaProducer(**config) as producer:
                await producer.send_and_wait(name, b"v")
            group = {"auto_offset_reset": "earliest", "group_id": name}
            async with AIOKafkaConsumer(name, **group, **config) as consumer:
                equal((await asyncio.wait_for(consumer.getone(), 30)).value, b"v", mechanism)

    asyncio.run(main())


run()
