//! Consumer groups, over the wire.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::*;
use tokio::net::TcpStream;

use crate::support::{Client, PATIENCE, Running, name, options, string};

fn group(id: &str) -> GroupId {
    GroupId(string(id))
}

/// A member's view of its group.
struct Member {
    client: Client<TcpStream>,
    group: String,
    id: String,
    instance: Option<String>,
    generation: i32,
    version: i16,
}

impl Member {
    async fn new(broker: &Running, group: &str, version: i16) -> Self {
        Self {
            client: broker.client().await,
            group: group.into(),
            id: String::new(),
            instance: None,
            generation: -1,
            version,
        }
    }

    fn join_request(&self, session_ms: i32) -> JoinGroupRequest {
        join(&self.group)
            .with_session_timeout_ms(session_ms)
            .with_rebalance_timeout_ms(if self.version >= 1 { 30_000 } else { -1 })
            .with_member_id(string(&self.id))
            .with_group_instance_id(self.instance.as_deref().map(string))
    }

    /// Joins, with a name of its own where the broker asks for one first.
    async fn join(&mut self, session_ms: i32) -> JoinGroupResponse {
        let version = self.version.min(9);
        let mut joined = self
            .client
            .ask(version, &self.join_request(session_ms))
            .await;
        if joined.error_code == ResponseError::MemberIdRequired.code() {
            self.id = joined.member_id.to_string();
            joined = self
                .client
                .ask(version, &self.join_request(session_ms))
                .await;
        }
        assert_eq!(joined.error_code, 0, "{joined:?}");
        self.id = joined.member_id.to_string();
        self.generation = joined.generation_id;
        joined
    }

    async fn sync(&mut self, assignments: &[(&str, &'static str)]) -> SyncGroupResponse {
        let assignments = assignments.iter().map(|(member, what)| {
            sync_group_request::SyncGroupRequestAssignment::default()
                .with_member_id(string(member))
                .with_assignment(Bytes::from_static(what.as_bytes()))
        });
        let version = self.version.min(5);
        let q = SyncGroupRequest::default()
            .with_group_id(group(&self.group))
            .with_generation_id(self.generation)
            .with_member_id(string(&self.id))
            .with_group_instance_id(self.instance.as_deref().map(string))
            .with_protocol_type((version >= 5).then(|| string("consumer")))
            .with_protocol_name((version >= 5).then(|| string("range")))
            .with_assignments(assignments.collect());
        self.client.ask(version, &q).await
    }

    async fn beat(&mut self) -> i16 {
        let q = HeartbeatRequest::default()
            .with_group_id(group(&self.group))
            .with_generation_id(self.generation)
            .with_member_id(string(&self.id))
            .with_group_instance_id(self.instance.as_deref().map(string));
        self.client.ask(self.version.min(4), &q).await.error_code
    }

    /// Beats until it is told to join again.
    async fn until_rebalance(&mut self) {
        let rebalance = ResponseError::RebalanceInProgress.code();
        let beating = async {
            while self.beat().await != rebalance {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, beating)
            .await
            .expect("a rebalance");
    }

    async fn commit(&mut self, topic: &str, offset: i64) -> i16 {
        let q = commit(&self.group, topic, offset)
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(string(&self.id))
            .with_group_instance_id(self.instance.as_deref().map(string));
        let version = self.version.clamp(2, 8);
        let answer = self.client.ask(version, &q).await;
        answer.topics[0].partitions[0].error_code
    }

    async fn leave(&mut self) -> i16 {
        let version = self.version.min(5);
        let q = LeaveGroupRequest::default().with_group_id(group(&self.group));
        let q = if version < 3 {
            q.with_member_id(string(&self.id))
        } else {
            q.with_members(vec![
                leave_group_request::MemberIdentity::default().with_member_id(string(&self.id)),
            ])
        };
        let answer = self.client.ask(version, &q).await;
        answer
            .members
            .first()
            .map_or(answer.error_code, |m| m.error_code)
    }
}

/// Somebody new wants to join.
fn join(id: &str) -> JoinGroupRequest {
    let protocol = join_group_request::JoinGroupRequestProtocol::default();
    JoinGroupRequest::default()
        .with_group_id(group(id))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(30_000)
        .with_protocol_type(string("consumer"))
        .with_protocols(vec![
            protocol
                .with_name(string("range"))
                .with_metadata(Bytes::from(format!("data of {id}"))),
        ])
}

/// A commit by somebody who is in no group.
fn commit(id: &str, topic: &str, offset: i64) -> OffsetCommitRequest {
    OffsetCommitRequest::default()
        .with_group_id(group(id))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![
            offset_commit_request::OffsetCommitRequestTopic::default()
                .with_name(name(topic))
                .with_partitions(vec![
                    offset_commit_request::OffsetCommitRequestPartition::default()
                        .with_committed_offset(offset)
                        .with_committed_metadata(Some(string("remark"))),
                ]),
        ])
}

/// Offset and remark of partition 0.
async fn committed(client: &mut Client<TcpStream>, id: &str, topic: &str) -> (i64, String) {
    let q = OffsetFetchRequest::default()
        .with_group_id(group(id))
        .with_topics(Some(vec![
            offset_fetch_request::OffsetFetchRequestTopic::default()
                .with_name(name(topic))
                .with_partition_indexes(vec![0]),
        ]));
    let answer = client.ask(7, &q).await;
    let partition = &answer.topics[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    let remark = partition.metadata.as_deref().unwrap_or_default();
    (partition.committed_offset, remark.to_owned())
}

async fn described(
    client: &mut Client<TcpStream>,
    id: &str,
) -> describe_groups_response::DescribedGroup {
    let q = DescribeGroupsRequest::default().with_groups(vec![group(id)]);
    client.ask(5, &q).await.groups.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_lives_and_ends_in_every_version() {
    let broker = Running::start(options()).await;
    let mut client = broker.client().await;
    client.create("read", 1).await;
    for version in 0..=9 {
        let id = format!("group-{version}");
        let mut member = Member::new(&broker, &id, version).await;
        let joined = member.join(10_000).await;
        assert_eq!(
            (joined.generation_id, joined.members.len()),
            (1, 1),
            "v{version}"
        );
        assert_eq!(joined.leader, joined.member_id);
        assert_eq!(joined.protocol_name.as_deref(), Some("range"));
        let me = member.id.clone();
        let synced = member.sync(&[(&me, "all of it")]).await;
        assert_eq!(
            (synced.error_code, &synced.assignment[..]),
            (0, &b"all of it"[..])
        );
        assert_eq!(member.beat().await, 0);
        assert_eq!(member.commit("read", i64::from(version)).await, 0);
        let group = described(&mut client, &id).await;
        assert_eq!(group.group_state.as_str(), "Stable");
        assert_eq!(group.members[0].client_id.as_str(), "a-test");
        assert_eq!(&group.members[0].member_assignment[..], b"all of it");
        let delete = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(string(&id))]);
        let deleted = client.ask(2, &delete).await;
        assert_eq!(
            deleted.results[0].error_code,
            ResponseError::NonEmptyGroup.code()
        );
        // While somebody is in it, only members commit.
        let foreign = client.ask(8, &commit(&id, "read", 100)).await;
        let error = foreign.topics[0].partitions[0].error_code;
        assert_eq!(error, ResponseError::UnknownMemberId.code());
        assert_eq!(member.leave().await, 0);
        assert_eq!(member.beat().await, ResponseError::UnknownMemberId.code());
        assert_eq!(
            committed(&mut client, &id, "read").await.0,
            i64::from(version)
        );
        assert_eq!(
            described(&mut client, &id).await.group_state.as_str(),
            "Empty"
        );
        let deleted = client.ask(2, &delete).await;
        assert_eq!(deleted.results[0].error_code, 0);
        assert_eq!(committed(&mut client, &id, "read").await.0, -1);
        assert_eq!(
            described(&mut client, &id).await.group_state.as_str(),
            "Dead"
        );
    }
    broker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_move_when_members_come_go_and_die() {
    let broker = Running::start(options()).await;
    let mut first = Member::new(&broker, "moving", 9).await;
    first.join(30_000).await;
    let one = first.id.clone();
    first.sync(&[(&one, "everything")]).await;
    // Another one comes: the first joins again and, as leader, gives out the partitions.
    let mut second = Member::new(&broker, "moving", 9).await;
    let (joined, ()) = tokio::join!(second.join(500), async {
        first.until_rebalance().await;
        let joined = first.join(30_000).await;
        assert_eq!((joined.generation_id, joined.members.len()), (2, 2));
        assert_eq!(joined.leader.as_str(), one);
    });
    assert_eq!((joined.generation_id, joined.members.len()), (2, 0));
    let two = second.id.clone();
    let given = [(one.as_str(), "a half"), (two.as_str(), "the other")];
    let (theirs, mine) = tokio::join!(second.sync(&[]), first.sync(&given));
    assert_eq!(
        (&mine.assignment[..], &theirs.assignment[..]),
        (&b"a half"[..], &b"the other"[..])
    );
    // An old generation is told so.
    second.generation = 1;
    assert_eq!(second.beat().await, ResponseError::IllegalGeneration.code());
    // It dies without a word: its session ends, and the first is asked to join again.
    drop(second);
    first.until_rebalance().await;
    let joined = first.join(30_000).await;
    assert_eq!((joined.generation_id, joined.members.len()), (3, 1));
    // While partitions are given out, nobody commits.
    assert_eq!(
        first.commit("absent", 1).await,
        ResponseError::RebalanceInProgress.code()
    );
    broker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_comes_back_to_its_seat() {
    let broker = Running::start(options()).await;
    let mut member = Member::new(&broker, "static", 9).await;
    member.instance = Some("seat".into());
    member.join(30_000).await;
    let old = member.id.clone();
    member.sync(&[(&old, "mine")]).await;
    // The same instance again, as after a restart: no new generation, the same partitions.
    let mut again = Member::new(&broker, "static", 9).await;
    again.instance = Some("seat".into());
    let joined = again.join(30_000).await;
    assert_eq!((joined.generation_id, joined.skip_assignment), (1, true));
    assert_ne!(again.id, old);
    assert_eq!(&again.sync(&[]).await.assignment[..], b"mine");
    // The one from before is kept out.
    assert_eq!(member.beat().await, ResponseError::FencedInstanceId.code());
    let fenced = member.client.ask(9, &member.join_request(30_000)).await;
    assert_eq!(fenced.error_code, ResponseError::FencedInstanceId.code());
    broker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_is_refused_in_kafkas_codes() {
    let mut options = options();
    options.limits.members = 1;
    let broker = Running::start(options).await;
    let mut member = Member::new(&broker, "strict", 9).await;
    member.join(30_000).await;
    let q = || join("strict");
    for (q, error) in [
        (q().with_group_id(group("")), ResponseError::InvalidGroupId),
        (
            q().with_session_timeout_ms(1),
            ResponseError::InvalidSessionTimeout,
        ),
        (
            q().with_protocols(vec![]),
            ResponseError::InconsistentGroupProtocol,
        ),
        (
            q().with_protocol_type(string("connect")),
            ResponseError::InconsistentGroupProtocol,
        ),
        (
            q().with_member_id(string("made-up")),
            ResponseError::UnknownMemberId,
        ),
        (q(), ResponseError::GroupMaxSizeReached),
        (
            q().with_group_id(group("new"))
                .with_member_id(string("made-up")),
            ResponseError::UnknownMemberId,
        ),
    ] {
        let answer = broker.client().await.ask(9, &q).await;
        assert_eq!(answer.error_code, error.code(), "{error:?}");
    }
    broker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_offsets_survive_a_restart_and_expire() {
    let broker = Running::start(options()).await;
    let mut client = broker.client().await;
    client.create("kept", 1).await;
    client.create("dropped", 1).await;
    for (id, topic, offset) in [
        ("a", "kept", 1),
        ("a", "kept", 5),
        ("a", "dropped", 2),
        ("b", "kept", 3),
    ] {
        let answer = client.ask(8, &commit(id, topic, offset)).await;
        assert_eq!(answer.topics[0].partitions[0].error_code, 0);
    }
    let delete = OffsetDeleteRequest::default()
        .with_group_id(group("b"))
        .with_topics(vec![
            offset_delete_request::OffsetDeleteRequestTopic::default()
                .with_name(name("kept"))
                .with_partitions(vec![
                    offset_delete_request::OffsetDeleteRequestPartition::default(),
                ]),
        ]);
    assert_eq!(
        client.ask(0, &delete).await.topics[0].partitions[0].error_code,
        0
    );
    let gone = DeleteTopicsRequest::default().with_topic_names(vec![name("dropped")]);
    assert_eq!(client.ask(5, &gone).await.responses[0].error_code, 0);
    let folder = broker.end().await;

    // Everything as it was, in a group that lists as empty.
    let broker = Running::start_in(folder, options()).await;
    let mut client = broker.client().await;
    assert_eq!(
        committed(&mut client, "a", "kept").await,
        (5, "remark".into())
    );
    assert_eq!(committed(&mut client, "a", "dropped").await.0, -1);
    assert_eq!(committed(&mut client, "b", "kept").await.0, -1);
    let listed = client.ask(5, &ListGroupsRequest::default()).await;
    let listed: Vec<&str> = listed.groups.iter().map(|g| g.group_id.as_str()).collect();
    assert_eq!(listed, ["a"]);
    let folder = broker.end().await;

    let mut short = options();
    short.limits.offsets_retention = Duration::from_millis(1);
    short.limits.housekeeping = Duration::from_millis(50);
    let broker = Running::start_in(folder, short).await;
    let mut client = broker.client().await;
    let expiring = async {
        while committed(&mut client, "a", "kept").await.0 != -1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, expiring)
        .await
        .expect("it expires");
    let folder = broker.end().await;
    let broker = Running::start_in(folder, options()).await;
    let mut client = broker.client().await;
    assert_eq!(committed(&mut client, "a", "kept").await.0, -1);
    broker.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_are_checked() {
    let broker = Running::start(options()).await;
    let mut client = broker.client().await;
    client.create("read", 1).await;
    let mut long = commit("a", "read", 1);
    long.topics[0].partitions[0].committed_metadata = Some(string(&"x".repeat(4097)));
    for (q, error) in [
        (
            commit("a", "absent", 1),
            ResponseError::UnknownTopicOrPartition,
        ),
        (commit("", "read", 1), ResponseError::InvalidGroupId),
        (long, ResponseError::OffsetMetadataTooLarge),
        (
            commit("a", "read", 1).with_generation_id_or_member_epoch(3),
            ResponseError::IllegalGeneration,
        ),
    ] {
        let answer = client.ask(8, &q).await;
        assert_eq!(
            answer.topics[0].partitions[0].error_code,
            error.code(),
            "{error:?}"
        );
    }
    assert_eq!(committed(&mut client, "a", "read").await.0, -1);
    broker.end().await;
}
