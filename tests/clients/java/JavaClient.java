package falaj.clients;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * The Java client against one broker: {@code JavaClient BROKERS SUBJECT}. Prints a line a case and
 * ends with 1 at the first that fails. SUBJECT is {@code kafka} (the control) or {@code falaj}.
 */
public final class JavaClient {
    private static final long PATIENCE_SECONDS = 30;

    private final String brokers;
    private final boolean falaj;
    private final String run = UUID.randomUUID().toString().substring(0, 8);

    private JavaClient(String brokers, String subject) {
        this.brokers = brokers;
        this.falaj = subject.equals("falaj");
    }

    public static void main(String[] args) throws Exception {
        JavaClient client = new JavaClient(args[0], args[1]);
        client.topics();
        client.idempotentProducerAndEveryCompression();
        client.cooperativeGroup();
        client.transactions();
    }

    private void topics() throws Exception {
        String topic = "java-topics-" + run;
        try (Admin admin = Admin.create(config())) {
            create(admin, topic, 3);
            equal(admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size(), 3);
            try {
                create(admin, topic, 3);
                throw new AssertionError("a topic was made twice");
            } catch (ExecutionException e) {
                equal(e.getCause().getClass(), TopicExistsException.class);
            }
            admin.deleteTopics(List.of(topic)).all().get();
            until("the topic is gone", () -> !admin.listTopics().names().get().contains(topic));
        }
        System.out.println("ok topics");
    }

    private void idempotentProducerAndEveryCompression() throws Exception {
        String topic = "java-idempotent-" + run;
        try (Admin admin = Admin.create(config())) {
            create(admin, topic, 1);
            List<String> sent = new ArrayList<>();
            for (String compression : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
                Map<String, Object> config = config();
                config.put("enable.idempotence", true);
                config.put("acks", "all");
                config.put("compression.type", compression);
                config.put("linger.ms", 50);
                for (int i = 0; i < 200; i++) sent.add(compression + " " + i + " " + "x".repeat(200));
                produce(config, topic, sent.subList(sent.size() - 200, sent.size()));
            }
            TopicPartition partition = new TopicPartition(topic, 0);
            equal(admin.listOffsets(Map.of(partition, OffsetSpec.latest())).all().get().get(partition).offset(), 1000L);
            try (KafkaConsumer<String, String> consumer = consumer("reader", Map.of())) {
                consumer.assign(List.of(partition));
                consumer.seek(partition, 0);
                List<String> got = new ArrayList<>();
                until("1000 records", () -> {
                    for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) got.add(record.value());
                    return got.size() >= 1000;
                });
                equal(got.equals(sent), true);
            }
        }
        System.out.println("ok idempotentProducerAndEveryCompression");
    }

    private void cooperativeGroup() throws Exception {
        String topic = "java-group-" + run;
        String group = "java-group-" + run;
        Map<String, Object> config = Map.of(
                "partition.assignment.strategy", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor",
                "heartbeat.interval.ms", 500);
        try (Admin admin = Admin.create(config())) {
            create(admin, topic, 4);
            List<String> values = new ArrayList<>();
            for (int i = 0; i < 400; i++) values.add("v" + i);
            produce(config(), topic, values);

            Set<String> got = new HashSet<>();
            try (KafkaConsumer<String, String> first = consumer(group, config)) {
                first.subscribe(List.of(topic));
                until("400 records", () -> take(first, got) && got.size() == 400);
                first.commitSync();
                try (KafkaConsumer<String, String> second = consumer(group, config)) {
                    second.subscribe(List.of(topic));
                    until("two partitions each", () -> take(first, got) && take(second, got)
                            && first.assignment().size() == 2 && second.assignment().size() == 2);
                    Set<TopicPartition> all = new HashSet<>(first.assignment());
                    all.addAll(second.assignment());
                    equal(all.size(), 4);
                    equal(admin.describeConsumerGroups(List.of(group)).all().get().get(group).members().size(), 2);
                }
                until("one has all partitions", () -> take(first, got) && first.assignment().size() == 4);
                first.commitSync();
            }
            long committed = 0;
            for (OffsetAndMetadata o : admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().values()) {
                committed += o.offset();
            }
            equal(committed, 400L);
            admin.deleteConsumerGroups(List.of(group)).all().get();
        }
        System.out.println("ok cooperativeGroup");
    }

    private void transactions() throws Exception {
        String topic = "java-transactions-" + run;
        try (Admin admin = Admin.create(config())) {
            create(admin, topic, 1);
        }
        Map<String, Object> config = config();
        config.put("transactional.id", "java-" + run);
        config.put("max.block.ms", 10_000);
        String said = "Kafka has them";
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            producer.initTransactions();
            if (falaj) throw new AssertionError("a transactional id was accepted");
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, "v"));
            producer.commitTransaction();
        } catch (KafkaException e) {
            if (!falaj || e instanceof TimeoutException) throw e;
            said = e.getClass().getSimpleName();
        }
        System.out.println("ok transactions: " + said);
    }

    private Map<String, Object> config() {
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", brokers);
        return config;
    }

    private KafkaConsumer<String, String> consumer(String group, Map<String, Object> more) {
        Map<String, Object> config = config();
        config.put("group.id", group);
        config.put("auto.offset.reset", "earliest");
        config.put("enable.auto.commit", false);
        config.putAll(more);
        return new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
    }

    private static void produce(Map<String, Object> config, String topic, List<String> values) throws Exception {
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (String value : values) sent.add(producer.send(new ProducerRecord<>(topic, value, value)));
            for (Future<RecordMetadata> one : sent) one.get(PATIENCE_SECONDS, TimeUnit.SECONDS);
        }
    }

    private static boolean take(KafkaConsumer<String, String> consumer, Set<String> got) {
        for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) got.add(record.value());
        return true;
    }

    private static void create(Admin admin, String topic, int partitions) throws Exception {
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get();
        // Kafka answers before its brokers have heard of the topic.
        until("the topic is there", () -> admin.listTopics().names().get().contains(topic));
    }

    private interface Condition {
        boolean holds() throws Exception;
    }

    private static void until(String what, Condition condition) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_SECONDS);
        while (!condition.holds()) {
            if (System.nanoTime() > end) throw new AssertionError("not within " + PATIENCE_SECONDS + " s: " + what);
        }
    }

    private static void equal(Object got, Object wanted) {
        if (!got.equals(wanted)) throw new AssertionError(got + ", not " + wanted);
    }
}
