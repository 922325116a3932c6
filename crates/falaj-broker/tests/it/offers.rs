//! Every kind of request in every version that is offered: decoded, answered, encoded.

use std::collections::BTreeMap;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, StrBytes};
use uuid::Uuid;

use crate::support::{Running, batch, name, options, produce, request, string};

const TOPIC: &str = "offered";
const GROUP: &str = "readers";

/// Kafka's `TRANSACTIONAL_ID_AUTHORIZATION_FAILED`: clients give up and do not ask again.
const REFUSED: i16 = 53;

/// What the broker says that it offers.
async fn offered(broker: &Running) -> BTreeMap<i16, (i16, i16)> {
    let mut client = broker.client().await;
    let answer = client.ask(3, &ApiVersionsRequest::default()).await;
    assert_eq!(answer.error_code, 0);
    let keys = answer.api_keys.iter();
    keys.map(|k| (k.api_key, (k.min_version, k.max_version)))
        .collect()
}

/// A request with every field set that its version has.
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn sample(key: ApiKey, v: i16, id: Uuid) -> RequestKind {
    let group = || GroupId(string(GROUP));
    let instance = |from: i16| (v >= from).then(|| string("instance"));
    match key {
        ApiKey::Produce => produce(TOPIC, -1, batch(&["a", "b"])).into(),
        ApiKey::Fetch => {
            let partition = fetch_request::FetchPartition::default()
                .with_partition(0)
                .with_current_leader_epoch(if v >= 9 { 0 } else { -1 })
                .with_fetch_offset(0)
                .with_log_start_offset(if v >= 5 { 0 } else { -1 })
                .with_partition_max_bytes(1 << 20);
            let forgotten = fetch_request::ForgottenTopic::default()
                .with_topic(name(TOPIC))
                .with_partitions(vec![1, 2, 3]);
            let q = FetchRequest::default()
                .with_max_wait_ms(10)
                .with_min_bytes(1)
                .with_max_bytes(1 << 20)
                .with_isolation_level(1)
                .with_session_epoch(if v >= 7 { 0 } else { -1 })
                .with_forgotten_topics_data(if v >= 7 { vec![forgotten] } else { vec![] })
                .with_rack_id(if v >= 11 {
                    string("rack")
                } else {
                    StrBytes::new()
                })
                .with_topics(vec![
                    fetch_request::FetchTopic::default()
                        .with_topic(name(TOPIC))
                        .with_partitions(vec![partition.clone(), partition.with_partition(7)]),
                ]);
            q.into()
        }
        ApiKey::ListOffsets => {
            let at = |timestamp| {
                list_offsets_request::ListOffsetsPartition::default()
                    .with_partition_index(0)
                    .with_current_leader_epoch(if v >= 4 { 0 } else { -1 })
                    .with_timestamp(timestamp)
            };
            ListOffsetsRequest::default()
                .with_isolation_level(i8::from(v >= 2))
                .with_topics(vec![
                    list_offsets_request::ListOffsetsTopic::default()
                        .with_name(name(TOPIC))
                        .with_partitions(vec![at(-1), at(-2), at(-3), at(0), at(i64::MAX), at(-9)]),
                ])
                .into()
        }
        ApiKey::Metadata => {
            let topic = |topic: Option<&str>| {
                metadata_request::MetadataRequestTopic::default().with_name(topic.map(name))
            };
            let mut topics = vec![topic(Some(TOPIC)), topic(Some("absent")), topic(Some("."))];
            if v >= 10 {
                topics[0] = topic(None).with_topic_id(id);
                topics.push(topic(None).with_topic_id(Uuid::from_u128(7)));
            }
            MetadataRequest::default()
                .with_topics(Some(topics))
                .with_allow_auto_topic_creation(v < 4)
                .with_include_cluster_authorized_operations((8..=10).contains(&v))
                .with_include_topic_authorized_operations(v >= 8)
                .into()
        }
        ApiKey::OffsetCommit => {
            let partition = offset_commit_request::OffsetCommitRequestPartition::default()
                .with_partition_index(0)
                .with_committed_offset(1)
                .with_committed_leader_epoch(if v >= 6 { 0 } else { -1 })
                .with_committed_metadata(Some(string("remark")));
            OffsetCommitRequest::default()
                .with_group_id(group())
                .with_generation_id_or_member_epoch(-1)
                .with_retention_time_ms(if v <= 4 { 1000 } else { -1 })
                .with_topics(vec![
                    offset_commit_request::OffsetCommitRequestTopic::default()
                        .with_name(name(TOPIC))
                        .with_partitions(vec![
                            partition.clone(),
                            partition.with_partition_index(9),
                        ]),
                ])
                .into()
        }
        ApiKey::OffsetFetch if v < 8 => OffsetFetchRequest::default()
            .with_group_id(group())
            .with_topics(Some(vec![
                offset_fetch_request::OffsetFetchRequestTopic::default()
                    .with_name(name(TOPIC))
                    .with_partition_indexes(vec![0, 1]),
            ]))
            .with_require_stable(v >= 7)
            .into(),
        ApiKey::OffsetFetch => OffsetFetchRequest::default()
            .with_groups(vec![
                offset_fetch_request::OffsetFetchRequestGroup::default()
                    .with_group_id(group())
                    .with_topics(Some(vec![
                        offset_fetch_request::OffsetFetchRequestTopics::default()
                            .with_name(name(TOPIC))
                            .with_partition_indexes(vec![0, 1]),
                    ])),
                offset_fetch_request::OffsetFetchRequestGroup::default()
                    .with_group_id(group())
                    .with_topics(None),
            ])
            .with_require_stable(true)
            .into(),
        ApiKey::FindCoordinator if v < 4 => FindCoordinatorRequest::default()
            .with_key(string(GROUP))
            .with_key_type(i8::from(v == 2))
            .into(),
        ApiKey::FindCoordinator => FindCoordinatorRequest::default()
            .with_key_type(0)
            .with_coordinator_keys(vec![string(GROUP), string("other")])
            .into(),
        ApiKey::JoinGroup => JoinGroupRequest::default()
            .with_group_id(GroupId(string(&format!("joined-{v}"))))
            .with_session_timeout_ms(10_000)
            .with_rebalance_timeout_ms(if v >= 1 { 10_000 } else { -1 })
            .with_group_instance_id(instance(5))
            .with_protocol_type(string("consumer"))
            .with_protocols(vec![
                join_group_request::JoinGroupRequestProtocol::default()
                    .with_name(string("range"))
                    .with_metadata(Bytes::from_static(b"data")),
            ])
            .with_reason((v >= 8).then(|| string("reason")))
            .into(),
        ApiKey::Heartbeat => HeartbeatRequest::default()
            .with_group_id(group())
            .with_generation_id(1)
            .with_member_id(string("nobody"))
            .with_group_instance_id(instance(3))
            .into(),
        ApiKey::LeaveGroup if v < 3 => LeaveGroupRequest::default()
            .with_group_id(group())
            .with_member_id(string("nobody"))
            .into(),
        ApiKey::LeaveGroup => LeaveGroupRequest::default()
            .with_group_id(group())
            .with_members(vec![
                leave_group_request::MemberIdentity::default()
                    .with_member_id(string("nobody"))
                    .with_group_instance_id(instance(3))
                    .with_reason((v >= 5).then(|| string("reason"))),
            ])
            .into(),
        ApiKey::SyncGroup => SyncGroupRequest::default()
            .with_group_id(group())
            .with_generation_id(1)
            .with_member_id(string("nobody"))
            .with_group_instance_id(instance(3))
            .with_protocol_type((v >= 5).then(|| string("consumer")))
            .with_protocol_name((v >= 5).then(|| string("range")))
            .with_assignments(vec![
                sync_group_request::SyncGroupRequestAssignment::default()
                    .with_member_id(string("nobody"))
                    .with_assignment(Bytes::from_static(b"all")),
            ])
            .into(),
        ApiKey::DescribeGroups => DescribeGroupsRequest::default()
            .with_groups(vec![group(), GroupId(string("absent"))])
            .with_include_authorized_operations(v >= 3)
            .into(),
        ApiKey::ListGroups => ListGroupsRequest::default()
            .with_states_filter(if v >= 4 {
                vec![string("Empty")]
            } else {
                vec![]
            })
            .with_types_filter(if v >= 5 {
                vec![string("classic")]
            } else {
                vec![]
            })
            .into(),
        ApiKey::SaslHandshake => SaslHandshakeRequest::default()
            .with_mechanism(string("PLAIN"))
            .into(),
        ApiKey::SaslAuthenticate => SaslAuthenticateRequest::default()
            .with_auth_bytes(Bytes::from_static(b"\0a\0b"))
            .into(),
        ApiKey::ApiVersions => ApiVersionsRequest::default()
            .with_client_software_name(if v >= 3 {
                string("test")
            } else {
                StrBytes::new()
            })
            .with_client_software_version(if v >= 3 { string("1") } else { StrBytes::new() })
            .into(),
        ApiKey::CreateTopics => {
            let config = create_topics_request::CreatableTopicConfig::default();
            let topic = create_topics_request::CreatableTopic::default()
                .with_name(name(&format!("made-{v}")))
                .with_num_partitions(2)
                .with_replication_factor(1)
                .with_configs(vec![
                    config
                        .clone()
                        .with_name(string("retention.ms"))
                        .with_value(Some(string("60000"))),
                    config.with_name(string("cleanup.policy")).with_value(None),
                ]);
            let assigned = create_topics_request::CreatableTopic::default()
                .with_name(name(&format!("assigned-{v}")))
                .with_num_partitions(-1)
                .with_replication_factor(-1)
                .with_assignments(vec![
                    create_topics_request::CreatableReplicaAssignment::default()
                        .with_partition_index(0)
                        .with_broker_ids(vec![BrokerId(1)]),
                ]);
            CreateTopicsRequest::default()
                .with_topics(vec![topic, assigned])
                .with_timeout_ms(1000)
                .with_validate_only(false)
                .into()
        }
        ApiKey::DeleteTopics if v < 6 => DeleteTopicsRequest::default()
            .with_topic_names(vec![name(&format!("made-{v}")), name("absent-too")])
            .with_timeout_ms(1000)
            .into(),
        ApiKey::DeleteTopics => {
            let topic = delete_topics_request::DeleteTopicState::default();
            DeleteTopicsRequest::default()
                .with_topics(vec![
                    topic.clone().with_name(Some(name(&format!("made-{v}")))),
                    topic.with_name(None).with_topic_id(Uuid::from_u128(7)),
                ])
                .with_timeout_ms(1000)
                .into()
        }
        ApiKey::DeleteRecords => DeleteRecordsRequest::default()
            .with_topics(vec![
                delete_records_request::DeleteRecordsTopic::default()
                    .with_name(name(TOPIC))
                    .with_partitions(vec![
                        delete_records_request::DeleteRecordsPartition::default()
                            .with_partition_index(0)
                            .with_offset(0),
                    ]),
            ])
            .with_timeout_ms(1000)
            .into(),
        ApiKey::InitProducerId => InitProducerIdRequest::default()
            .with_transactional_id((v == 1).then(|| TransactionalId(string("transaction"))))
            .with_transaction_timeout_ms(1000)
            .into(),
        ApiKey::OffsetForLeaderEpoch => OffsetForLeaderEpochRequest::default()
            .with_replica_id(if v >= 3 { BrokerId(-1) } else { BrokerId(-2) })
            .with_topics(vec![
                offset_for_leader_epoch_request::OffsetForLeaderTopic::default()
                    .with_topic(name(TOPIC))
                    .with_partitions(vec![
                        offset_for_leader_epoch_request::OffsetForLeaderPartition::default()
                            .with_partition(0)
                            .with_current_leader_epoch(0)
                            .with_leader_epoch(0),
                    ]),
            ])
            .into(),
        ApiKey::DescribeConfigs => {
            let resource = |kind, name: &str, keys| {
                describe_configs_request::DescribeConfigsResource::default()
                    .with_resource_type(kind)
                    .with_resource_name(string(name))
                    .with_configuration_keys(keys)
            };
            DescribeConfigsRequest::default()
                .with_resources(vec![
                    resource(2, TOPIC, None),
                    resource(2, TOPIC, Some(vec![string("retention.ms")])),
                    resource(2, "absent-too", None),
                    resource(4, "1", None),
                    resource(4, "2", None),
                    resource(8, "1", None),
                ])
                .with_include_synonyms(true)
                .with_include_documentation(v >= 3)
                .into()
        }
        ApiKey::AlterConfigs => AlterConfigsRequest::default()
            .with_resources(vec![
                alter_configs_request::AlterConfigsResource::default()
                    .with_resource_type(2)
                    .with_resource_name(string(TOPIC))
                    .with_configs(vec![
                        alter_configs_request::AlterableConfig::default()
                            .with_name(string("retention.ms"))
                            .with_value(Some(string("70000"))),
                    ]),
            ])
            .with_validate_only(true)
            .into(),
        ApiKey::IncrementalAlterConfigs => IncrementalAlterConfigsRequest::default()
            .with_resources(vec![
                incremental_alter_configs_request::AlterConfigsResource::default()
                    .with_resource_type(2)
                    .with_resource_name(string(TOPIC))
                    .with_configs(vec![
                        incremental_alter_configs_request::AlterableConfig::default()
                            .with_name(string("retention.ms"))
                            .with_config_operation(0)
                            .with_value(Some(string("70000"))),
                    ]),
            ])
            .with_validate_only(false)
            .into(),
        ApiKey::CreatePartitions => {
            let topic = create_partitions_request::CreatePartitionsTopic::default();
            let assignment = create_partitions_request::CreatePartitionsAssignment::default();
            CreatePartitionsRequest::default()
                .with_topics(vec![
                    topic
                        .clone()
                        .with_name(name(TOPIC))
                        .with_count(2)
                        .with_assignments(None),
                    topic
                        .with_name(name("absent-too"))
                        .with_count(2)
                        .with_assignments(Some(vec![
                            assignment.with_broker_ids(vec![BrokerId(1)]),
                        ])),
                ])
                .with_timeout_ms(1000)
                .with_validate_only(true)
                .into()
        }
        ApiKey::DeleteGroups => DeleteGroupsRequest::default()
            .with_groups_names(vec![GroupId(string("absent")), GroupId(StrBytes::new())])
            .into(),
        ApiKey::OffsetDelete => OffsetDeleteRequest::default()
            .with_group_id(group())
            .with_topics(vec![
                offset_delete_request::OffsetDeleteRequestTopic::default()
                    .with_name(name(TOPIC))
                    .with_partitions(vec![
                        offset_delete_request::OffsetDeleteRequestPartition::default()
                            .with_partition_index(0),
                    ]),
            ])
            .into(),
        ApiKey::DescribeCluster => DescribeClusterRequest::default()
            .with_include_cluster_authorized_operations(true)
            .with_endpoint_type(1)
            .into(),
        ApiKey::ConsumerGroupHeartbeat => {
            let partitions = consumer_group_heartbeat_request::TopicPartitions::default();
            ConsumerGroupHeartbeatRequest::default()
                .with_group_id(group())
                .with_member_id(string("member"))
                .with_instance_id(Some(string("instance")))
                .with_rack_id(Some(string("rack")))
                .with_rebalance_timeout_ms(1000)
                .with_subscribed_topic_names(Some(vec![name(TOPIC), name("other")]))
                .with_subscribed_topic_regex((v >= 1).then(|| string("a.*")))
                .with_server_assignor(Some(string("uniform")))
                .with_topic_partitions(Some(vec![
                    partitions.with_topic_id(id).with_partitions(vec![0, 1]),
                ]))
                .into()
        }
        other => panic!("{other:?} is offered and not tested"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_that_is_offered_is_answered() {
    let broker = Running::start(options()).await;
    let mut client = broker.client().await;
    client.create(TOPIC, 1).await;
    client.produce(TOPIC, &["first", "second", "third"]).await;
    let id = broker.log.topic(TOPIC).unwrap().id();
    let mut count = 0;
    for (number, (min, max)) in offered(&broker).await {
        let key = ApiKey::try_from(number).unwrap();
        for version in min..=max {
            let mut client = broker.client().await;
            let q = sample(key, version, id);
            client.raw(&framed(key, version, &q)).await.unwrap();
            let mut bytes = client
                .frame()
                .await
                .unwrap_or_else(|| panic!("{key:?} v{version} ends the connection"));
            let header = ResponseHeader::decode(&mut bytes, key.response_header_version(version));
            assert_eq!(header.unwrap().correlation_id, 5, "{key:?} v{version}");
            let answer = ResponseKind::decode(key, &mut bytes, version);
            assert!(answer.is_ok(), "{key:?} v{version}: {answer:?}");
            assert!(
                !bytes.has_remaining(),
                "{key:?} v{version}: bytes behind the answer"
            );
            count += 1;
        }
    }
    assert!(count > 100, "{count} versions");
    broker.end().await;
}

fn framed(key: ApiKey, version: i16, q: &RequestKind) -> BytesMut {
    use bytes::BufMut;
    use kafka_protocol::protocol::Encodable;
    let mut bytes = BytesMut::new();
    bytes.put_i32(0);
    RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(5)
        .with_client_id(Some(string("a-test")))
        .encode(&mut bytes, key.request_header_version(version))
        .unwrap();
    q.encode(&mut bytes, version)
        .unwrap_or_else(|e| panic!("{key:?} v{version}: {e:#}"));
    let length = i32::try_from(bytes.len() - 4).unwrap();
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_to_kafka_is_refused_for_good() {
    let broker = Running::start(options()).await;
    let offered = offered(&broker).await;
    for key in [
        ApiKey::AddPartitionsToTxn,
        ApiKey::AddOffsetsToTxn,
        ApiKey::EndTxn,
        ApiKey::TxnOffsetCommit,
        ApiKey::WriteTxnMarkers,
    ] {
        assert!(!offered.contains_key(&(key as i16)), "{key:?} is offered");
    }
    let mut client = broker.client().await;
    for version in 1..=4 {
        let q = FindCoordinatorRequest::default().with_key_type(1);
        let q = if version < 4 {
            q.with_key(string("transaction"))
        } else {
            q.with_coordinator_keys(vec![string("transaction")])
        };
        let found = client.ask(version, &q).await;
        let error = found
            .coordinators
            .first()
            .map_or(found.error_code, |c| c.error_code);
        assert_eq!(error, REFUSED, "v{version}");
    }
    for version in 0..=4 {
        let q = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(string("transaction"))))
            .with_transaction_timeout_ms(1000);
        assert_eq!(
            client.ask(version, &q).await.error_code,
            REFUSED,
            "v{version}"
        );
    }
    let beat = client
        .ask(1, &ConsumerGroupHeartbeatRequest::default())
        .await;
    assert_eq!(beat.error_code, 35, "UNSUPPORTED_VERSION");
    assert!(
        beat.error_message
            .unwrap()
            .contains("group.protocol=classic")
    );
    let mut q = produce("auto", -1, batch(&["a"]));
    q.transactional_id = Some(TransactionalId(string("transaction")));
    let answer = client.ask(9, &q).await;
    assert_eq!(
        answer.responses[0].partition_responses[0].error_code,
        REFUSED
    );
    broker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_knows_newer_versions_is_told_what_is_offered() {
    let broker = Running::start(options()).await;
    let mut client = broker.client().await;
    // Version 99 of a request that has a header of version 2.
    let mut bytes = request(3, 1, &ApiVersionsRequest::default());
    bytes[6..8].copy_from_slice(&99_i16.to_be_bytes());
    client.raw(&bytes).await.unwrap();
    let mut answer = client.frame().await.unwrap();
    assert_eq!(answer.get_i32(), 1);
    let answer = ApiVersionsResponse::decode(&mut answer, 0).unwrap();
    assert_eq!(answer.error_code, 35);
    assert!(answer.api_keys.len() > 20);
    // The same connection goes on; any other kind in such a version ends it.
    let answer = client.ask(3, &ApiVersionsRequest::default()).await;
    assert_eq!(answer.error_code, 0);
    let mut bytes = request(12, 2, &MetadataRequest::default());
    bytes[6..8].copy_from_slice(&99_i16.to_be_bytes());
    client.raw(&bytes).await.unwrap();
    assert!(client.frame().await.is_none());
    broker.end().await;
}
