//! Consumer groups: who coordinates with whom, and where each group goes on.
//!
//! Always: the map of groups is held for moments only, never over file work.
//! Always: a committed offset is acknowledged when it is on the disk.
//! Absent on purpose: the second group protocol (KIP-848); clients settle on the classic one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use falaj_log::{Log, LogError};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse,
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest, SyncGroupResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tracing::warn;

use crate::broker::{
    Broker, Client, Crashed, code, kafka_error, known_partition, millis, now_ms, text,
};
use crate::group::{Bounds, Group, Joined, Joining, Phase, Syncing};
use crate::offsets::{Change, Committed, GROUP_BYTES_MAX, METADATA_BYTES_MAX, Offsets, Place};
use crate::options::{Limits, Options};

/// The type of groups that read topics.
const CONSUMERS: &str = "consumer";

/// From this version on, somebody new is told its name before it joins.
const NAMED_FIRST: i16 = 4;
/// From this version on, a protocol's name may be missing in the answer to `JoinGroup`.
const PROTOCOL_OPTIONAL: i16 = 7;
/// From this version on, a leader can be told not to give out partitions.
const CAN_SKIP: i16 = 9;

/// All groups.
pub(crate) struct Coordinator {
    pub offsets: Offsets,
    groups: Mutex<Groups>,
    limits: Limits,
}

#[derive(Default)]
struct Groups {
    by_name: BTreeMap<String, Group>,
    /// No more waiting: whoever waits is let go.
    closed: bool,
}

impl Coordinator {
    pub fn open(log: &Log, options: &Options) -> Result<Self, LogError> {
        Ok(Self {
            offsets: Offsets::open(log, options.durability)?,
            groups: Mutex::default(),
            limits: options.limits.clone(),
        })
    }

    /// Lets go whoever waits for a group.
    pub fn close(&self) {
        let mut groups = self.groups.lock();
        groups.closed = true;
        groups.by_name.clear();
    }

    /// What time brings to groups. Called many times a second.
    pub fn tick(&self, now: Instant) {
        let mut groups = self.groups.lock();
        for group in groups.by_name.values_mut().filter(|g| g.ticking()) {
            group.tick(now);
        }
    }

    /// Forgets what has expired: offsets that nobody uses, and groups that hold nothing. Does file
    /// work.
    pub fn housekeeping(&self, now: Instant, now_ms: i64) {
        let retention = self.limits.offsets_retention;
        let kept: BTreeSet<String> = {
            let groups = self.groups.lock();
            let in_use = |g: &Group| {
                !g.unused() || now.saturating_duration_since(g.empty_since) <= retention
            };
            let kept = groups.by_name.iter().filter(|(_, g)| in_use(g));
            kept.map(|(name, _)| name.clone()).collect()
        };
        let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let before_ms = now_ms.saturating_sub(retention_ms);
        self.remove(now_ms, |group, _, committed| {
            committed.at_ms < before_ms && !kept.contains(group)
        });
        let mut groups = self.groups.lock();
        let offsets = &self.offsets;
        groups
            .by_name
            .retain(|name, group| !group.unused() || offsets.knows(name));
    }

    /// Forgets the offsets of a topic that is gone. Does file work.
    pub fn forget_topic(&self, topic: &str, now_ms: i64) {
        self.remove(now_ms, |_, (name, _), _| name == topic);
    }

    fn remove(&self, now_ms: i64, gone: impl Fn(&str, &Place, &Committed) -> bool) {
        for (group, changes) in self.offsets.removals(gone) {
            if let Err(error) = self.offsets.change(&group, changes, now_ms) {
                warn!(%error, "expired offsets are not removed yet");
                return;
            }
        }
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            members: self.limits.members,
            first_rebalance: self.limits.first_rebalance,
        }
    }

    /// Does something to a group that is there.
    fn with<T>(
        &self,
        name: &str,
        act: impl FnOnce(&mut Group, Instant) -> Result<T, ResponseError>,
    ) -> Result<T, ResponseError> {
        valid(name)?;
        let mut groups = self.groups.lock();
        if groups.closed {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        let group = groups
            .by_name
            .get_mut(name)
            .ok_or(ResponseError::UnknownMemberId)?;
        act(group, Instant::now())
    }

    fn join(&self, name: &str, who: Joining) -> Result<oneshot::Receiver<Joined>, ResponseError> {
        valid(name)?;
        if !self.limits.session.contains(&who.session) {
            return Err(ResponseError::InvalidSessionTimeout);
        }
        let now = Instant::now();
        let mut groups = self.groups.lock();
        if groups.closed {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        if !groups.by_name.contains_key(name) {
            if !who.member.is_empty() {
                return Err(ResponseError::UnknownMemberId);
            }
            if groups.by_name.len() >= self.limits.groups {
                return Err(ResponseError::CoordinatorNotAvailable);
            }
        }
        let bounds = self.bounds();
        let group = groups
            .by_name
            .entry(name.to_owned())
            .or_insert_with(|| Group::new(bounds, now));
        let (tell, told) = oneshot::channel();
        group.join(who, tell, now);
        Ok(told)
    }

    /// Whether offsets of a group may be committed by this member.
    fn may_commit(
        &self,
        name: &str,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), ResponseError> {
        valid(name)?;
        let mut groups = self.groups.lock();
        match groups.by_name.get_mut(name) {
            Some(group) => group.may_commit(member, instance, generation, Instant::now()),
            None if generation >= 0 => Err(ResponseError::IllegalGeneration),
            None if !self.offsets.knows(name) && self.offsets.count() >= self.limits.groups => {
                Err(ResponseError::CoordinatorNotAvailable)
            }
            None => Ok(()),
        }
    }

    /// Whether a group can be deleted, and is taken out of the way of newcomers if so.
    fn retire(&self, name: &str) -> Result<(), ResponseError> {
        valid(name)?;
        let mut groups = self.groups.lock();
        match groups.by_name.get(name) {
            Some(group) if !group.unused() => Err(ResponseError::NonEmptyGroup),
            None if !self.offsets.knows(name) => Err(ResponseError::GroupIdNotFound),
            _ => {
                groups.by_name.remove(name);
                Ok(())
            }
        }
    }
}

/// Whether a group may have this name.
fn valid(name: &str) -> Result<(), ResponseError> {
    if name.is_empty() || name.len() > GROUP_BYTES_MAX {
        return Err(ResponseError::InvalidGroupId);
    }
    Ok(())
}

fn owned(name: Option<&StrBytes>) -> Option<String> {
    name.map(ToString::to_string)
}

/// A copy: what a request held is not to stay in memory as a whole.
fn copied(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

impl Broker {
    pub(crate) async fn join_group(
        &self,
        q: JoinGroupRequest,
        version: i16,
        client: &Client,
    ) -> JoinGroupResponse {
        let session = millis(q.session_timeout_ms);
        let who = Joining {
            member: q.member_id.to_string(),
            instance: owned(q.group_instance_id.as_ref()),
            client: client.name.to_string(),
            host: client.host.clone(),
            session,
            // The first version has one time-out for both.
            rebalance: match q.rebalance_timeout_ms {
                ms if ms > 0 => millis(ms),
                _ => session,
            },
            protocol_type: q.protocol_type.to_string(),
            protocols: q
                .protocols
                .iter()
                .map(|p| (p.name.to_string(), copied(&p.metadata)))
                .collect(),
            named_first: version >= NAMED_FIRST,
            can_skip: version >= CAN_SKIP,
        };
        let joined = match self.coordinator.join(&q.group_id, who) {
            // Let go without an answer: another join of the same member, or the end of the broker.
            Ok(told) => told.await.unwrap_or_else(|_| {
                Joined::refused(ResponseError::CoordinatorNotAvailable, &q.member_id)
            }),
            Err(error) => Joined::refused(error, &q.member_id),
        };
        let members = joined.members.into_iter().map(|(name, instance, data)| {
            JoinGroupResponseMember::default()
                .with_member_id(text(name))
                .with_group_instance_id(instance.map(text))
                .with_metadata(data)
        });
        let protocol = joined
            .protocol
            .or_else(|| (version < PROTOCOL_OPTIONAL).then(String::new));
        JoinGroupResponse::default()
            .with_error_code(code(joined.error))
            .with_generation_id(joined.generation)
            .with_protocol_type(joined.error.is_none().then_some(q.protocol_type))
            .with_protocol_name(protocol.map(text))
            .with_leader(text(joined.leader))
            .with_skip_assignment(joined.skip_assignment)
            .with_member_id(text(joined.member))
            .with_members(members.collect())
    }

    pub(crate) async fn sync_group(&self, q: SyncGroupRequest, version: i16) -> SyncGroupResponse {
        let who = Syncing {
            member: q.member_id.to_string(),
            instance: owned(q.group_instance_id.as_ref()),
            generation: q.generation_id,
            protocol_type: owned(q.protocol_type.as_ref()).filter(|_| version >= 5),
            protocol: owned(q.protocol_name.as_ref()).filter(|_| version >= 5),
            assignments: q
                .assignments
                .into_iter()
                .map(|a| (a.member_id.to_string(), a.assignment))
                .collect(),
        };
        let waiting = self.coordinator.with(&q.group_id, |group, now| {
            let (tell, told) = oneshot::channel();
            group.sync(&who, tell, now);
            Ok((told, group.protocol_type.clone(), group.protocol.clone()))
        });
        match waiting {
            Ok((told, protocol_type, protocol)) => {
                let synced = told
                    .await
                    .unwrap_or(Err(ResponseError::CoordinatorNotAvailable));
                let error = synced.as_ref().err().copied();
                let named = |name: String| error.is_none().then(|| text(name));
                SyncGroupResponse::default()
                    .with_error_code(code(error))
                    .with_protocol_type(named(protocol_type))
                    .with_protocol_name(named(protocol))
                    .with_assignment(synced.unwrap_or_default())
            }
            Err(error) => SyncGroupResponse::default().with_error_code(error.code()),
        }
    }

    pub(crate) fn heartbeat(&self, q: &HeartbeatRequest) -> HeartbeatResponse {
        let beat = self.coordinator.with(&q.group_id, |group, now| {
            let instance = q.group_instance_id.as_deref();
            group.heartbeat(&q.member_id, instance, q.generation_id, now)
        });
        HeartbeatResponse::default().with_error_code(code(beat.err()))
    }

    pub(crate) fn leave_group(&self, q: &LeaveGroupRequest, version: i16) -> LeaveGroupResponse {
        let leave = |member: &str, instance: Option<&str>| {
            self.coordinator
                .with(&q.group_id, |group, now| group.leave(member, instance, now))
        };
        if version < 3 {
            let left = leave(&q.member_id, None);
            return LeaveGroupResponse::default().with_error_code(code(left.err()));
        }
        let members = q.members.iter().map(|m| {
            let left = leave(&m.member_id, m.group_instance_id.as_deref());
            MemberResponse::default()
                .with_member_id(m.member_id.clone())
                .with_group_instance_id(m.group_instance_id.clone())
                .with_error_code(code(left.err()))
        });
        LeaveGroupResponse::default().with_members(members.collect())
    }

    pub(crate) async fn offset_commit(
        self: &Arc<Self>,
        q: OffsetCommitRequest,
    ) -> Result<OffsetCommitResponse, Crashed> {
        let allowed = self.coordinator.may_commit(
            &q.group_id,
            &q.member_id,
            q.group_instance_id.as_deref(),
            q.generation_id_or_member_epoch,
        );
        let at_ms = now_ms();
        let mut changes = Vec::new();
        let mut errors = Vec::new();
        for t in &q.topics {
            let topic = self.log.topic(&t.name);
            for p in &t.partitions {
                let checked = allowed.and_then(|()| {
                    known_partition(topic.as_deref(), p.partition_index, -1)?;
                    let metadata = p.committed_metadata.as_deref().unwrap_or_default();
                    if metadata.len() > METADATA_BYTES_MAX {
                        return Err(ResponseError::OffsetMetadataTooLarge);
                    }
                    Ok(Committed {
                        offset: p.committed_offset,
                        leader_epoch: p.committed_leader_epoch,
                        metadata: metadata.to_owned(),
                        at_ms,
                    })
                });
                errors.push(checked.as_ref().err().copied());
                if let Ok(committed) = checked {
                    let place = (t.name.to_string(), p.partition_index);
                    changes.push((place, Some(committed)));
                }
            }
        }
        let stored = self.store(q.group_id.to_string(), changes).await?;
        let mut errors = errors.into_iter();
        let topics = q.topics.into_iter().map(|t| {
            let partitions = t.partitions.iter().map(|p| {
                let error = errors.next().flatten().or(stored);
                OffsetCommitResponsePartition::default()
                    .with_partition_index(p.partition_index)
                    .with_error_code(code(error))
            });
            let partitions = partitions.collect();
            OffsetCommitResponseTopic::default()
                .with_name(t.name)
                .with_partitions(partitions)
        });
        Ok(OffsetCommitResponse::default().with_topics(topics.collect()))
    }

    /// Changes offsets of a group and waits until that is on the disk.
    async fn store(
        self: &Arc<Self>,
        group: String,
        changes: Vec<Change>,
    ) -> Result<Option<ResponseError>, Crashed> {
        if changes.is_empty() {
            return Ok(None);
        }
        let durable = self
            .on_disk(move |b| b.coordinator.offsets.change(&group, changes, now_ms()))
            .await?;
        let stored = match durable {
            Ok(durable) => durable.await.unwrap_or(Err(LogError::Closed)),
            Err(error) => Err(error),
        };
        Ok(stored.err().map(|error| match kafka_error(&error) {
            // In Kafka's words for a coordinator whose log does not work.
            ResponseError::KafkaStorageError => ResponseError::CoordinatorNotAvailable,
            other => other,
        }))
    }

    pub(crate) fn offset_fetch(&self, q: OffsetFetchRequest, version: i16) -> OffsetFetchResponse {
        let one = |group: &str, asked: Option<Vec<(TopicName, Vec<i32>)>>| {
            let committed = self.coordinator.offsets.of(group);
            let Some(asked) = asked else {
                let mut all: BTreeMap<String, Vec<(i32, Option<Committed>)>> = BTreeMap::new();
                for ((topic, partition), offset) in committed {
                    all.entry(topic)
                        .or_default()
                        .push((partition, Some(offset)));
                }
                let all = all.into_iter();
                return all
                    .map(|(t, p)| (TopicName(text(t)), p))
                    .collect::<Vec<_>>();
            };
            let asked = asked.into_iter().map(|(topic, partitions)| {
                let name = topic.to_string();
                let offsets = partitions.into_iter().map(|partition| {
                    let place = (name.clone(), partition);
                    (partition, committed.get(&place).cloned())
                });
                (topic, offsets.collect())
            });
            asked.collect()
        };
        if version < 8 {
            let asked = q.topics.map(|topics| {
                let topics = topics.into_iter();
                topics.map(|t| (t.name, t.partition_indexes)).collect()
            });
            let topics = one(&q.group_id, asked)
                .into_iter()
                .map(|(name, partitions)| {
                    let partitions = partitions.into_iter().map(|(index, committed)| {
                        let (offset, epoch, metadata) = parts(committed);
                        OffsetFetchResponsePartition::default()
                            .with_partition_index(index)
                            .with_committed_offset(offset)
                            .with_committed_leader_epoch(epoch)
                            .with_metadata(Some(metadata))
                    });
                    OffsetFetchResponseTopic::default()
                        .with_name(name)
                        .with_partitions(partitions.collect())
                });
            return OffsetFetchResponse::default().with_topics(topics.collect());
        }
        let groups = q.groups.into_iter().map(|g| {
            let asked = g.topics.map(|topics| {
                let topics = topics.into_iter();
                topics.map(|t| (t.name, t.partition_indexes)).collect()
            });
            let topics = one(&g.group_id, asked)
                .into_iter()
                .map(|(name, partitions)| {
                    let partitions = partitions.into_iter().map(|(index, committed)| {
                        let (offset, epoch, metadata) = parts(committed);
                        OffsetFetchResponsePartitions::default()
                            .with_partition_index(index)
                            .with_committed_offset(offset)
                            .with_committed_leader_epoch(epoch)
                            .with_metadata(Some(metadata))
                    });
                    OffsetFetchResponseTopics::default()
                        .with_name(name)
                        .with_partitions(partitions.collect())
                });
            let topics = topics.collect();
            OffsetFetchResponseGroup::default()
                .with_group_id(g.group_id)
                .with_topics(topics)
        });
        OffsetFetchResponse::default().with_groups(groups.collect())
    }

    pub(crate) async fn offset_delete(
        self: &Arc<Self>,
        q: OffsetDeleteRequest,
    ) -> Result<OffsetDeleteResponse, Crashed> {
        let reading = match self.coordinator.subscriptions(&q.group_id) {
            Ok(reading) => reading,
            Err(error) => {
                return Ok(OffsetDeleteResponse::default().with_error_code(error.code()));
            }
        };
        let mut changes = Vec::new();
        let mut topics = Vec::new();
        for t in q.topics {
            let topic = self.log.topic(&t.name);
            let mut partitions = Vec::new();
            for p in t.partitions {
                let error = if reading.contains(t.name.as_str()) {
                    Some(ResponseError::GroupSubscribedToTopic)
                } else {
                    known_partition(topic.as_deref(), p.partition_index, -1).err()
                };
                if error.is_none() {
                    changes.push(((t.name.to_string(), p.partition_index), None));
                }
                partitions.push(
                    OffsetDeleteResponsePartition::default()
                        .with_partition_index(p.partition_index)
                        .with_error_code(code(error)),
                );
            }
            topics.push(
                OffsetDeleteResponseTopic::default()
                    .with_name(t.name)
                    .with_partitions(partitions),
            );
        }
        let stored = self.store(q.group_id.to_string(), changes).await?;
        Ok(OffsetDeleteResponse::default()
            .with_error_code(code(stored))
            .with_topics(topics))
    }

    pub(crate) fn list_groups(&self, q: &ListGroupsRequest) -> ListGroupsResponse {
        let known = self.coordinator.offsets.groups();
        let groups = self.coordinator.groups.lock();
        let mut all: BTreeMap<&str, (Phase, &str)> = BTreeMap::new();
        for name in &known {
            all.insert(name, (Phase::Empty, CONSUMERS));
        }
        for (name, group) in &groups.by_name {
            all.insert(name, (group.phase, group.protocol_type.as_str()));
        }
        let listed = all.into_iter().filter(|(_, (phase, _))| {
            let named = |state: &StrBytes| state.eq_ignore_ascii_case(phase.name());
            q.states_filter.is_empty() || q.states_filter.iter().any(named)
        });
        let types = q.types_filter.as_slice();
        let classic = types.is_empty() || types.iter().any(|t| t.eq_ignore_ascii_case("classic"));
        let listed = listed
            .filter(|_| classic)
            .map(|(name, (phase, protocol_type))| {
                ListedGroup::default()
                    .with_group_id(GroupId(text(name)))
                    .with_protocol_type(text(protocol_type))
                    .with_group_state(StrBytes::from_static_str(phase.name()))
                    .with_group_type(StrBytes::from_static_str("classic"))
            });
        ListGroupsResponse::default().with_groups(listed.collect())
    }

    pub(crate) fn describe_groups(&self, q: DescribeGroupsRequest) -> DescribeGroupsResponse {
        let groups = self.coordinator.groups.lock();
        let described = q.groups.into_iter().map(|name| {
            let reply = DescribedGroup::default();
            let reply = match groups.by_name.get(name.as_str()) {
                Some(group) => described(reply, group),
                None if self.coordinator.offsets.knows(&name) => reply
                    .with_group_state(StrBytes::from_static_str(Phase::Empty.name()))
                    .with_protocol_type(StrBytes::from_static_str(CONSUMERS)),
                None => reply.with_group_state(StrBytes::from_static_str("Dead")),
            };
            reply.with_group_id(name)
        });
        DescribeGroupsResponse::default().with_groups(described.collect())
    }

    pub(crate) async fn delete_groups(
        self: &Arc<Self>,
        q: DeleteGroupsRequest,
    ) -> Result<DeleteGroupsResponse, Crashed> {
        let mut results = Vec::with_capacity(q.groups_names.len());
        for name in q.groups_names {
            let error = match self.coordinator.retire(&name) {
                Ok(()) => {
                    let offsets = self.coordinator.offsets.of(&name).into_keys();
                    let changes = offsets.map(|place| (place, None)).collect();
                    self.store(name.to_string(), changes).await?
                }
                Err(error) => Some(error),
            };
            results.push(
                DeletableGroupResult::default()
                    .with_group_id(name)
                    .with_error_code(code(error)),
            );
        }
        Ok(DeleteGroupsResponse::default().with_results(results))
    }
}

impl Coordinator {
    /// Topics that members of a group read.
    fn subscriptions(&self, name: &str) -> Result<BTreeSet<String>, ResponseError> {
        valid(name)?;
        let groups = self.groups.lock();
        let Some(group) = groups.by_name.get(name) else {
            return if self.offsets.knows(name) {
                Ok(BTreeSet::new())
            } else {
                Err(ResponseError::GroupIdNotFound)
            };
        };
        if !group.unused() && group.protocol_type != CONSUMERS {
            return Err(ResponseError::NonEmptyGroup);
        }
        let members = group.members.values();
        let data = members.flat_map(|m| m.protocols.iter().map(|(_, data)| data));
        Ok(data.flat_map(subscribed).collect())
    }
}

/// Topics in the protocol data of a consumer: version, then their names.
fn subscribed(data: &Bytes) -> Vec<String> {
    fn read(mut data: &[u8]) -> Option<Vec<String>> {
        data.try_get_i16().ok()?;
        let mut topics = Vec::new();
        for _ in 0..data.try_get_i32().ok()? {
            let length = usize::try_from(data.try_get_i16().ok()?).ok()?;
            let (name, rest) = data.split_at_checked(length)?;
            topics.push(String::from_utf8(name.to_vec()).ok()?);
            data = rest;
        }
        Some(topics)
    }
    read(data).unwrap_or_default()
}

fn described(reply: DescribedGroup, group: &Group) -> DescribedGroup {
    let settled = group.phase == Phase::Stable;
    let members = group.members.iter().map(|(name, m)| {
        let data = m.protocols.iter().find(|(p, _)| *p == group.protocol);
        DescribedGroupMember::default()
            .with_member_id(text(name.as_str()))
            .with_group_instance_id(m.instance.clone().map(text))
            .with_client_id(text(m.client.as_str()))
            .with_client_host(text(m.host.as_str()))
            .with_member_metadata(data.map(|(_, data)| data.clone()).unwrap_or_default())
            .with_member_assignment(if settled {
                m.assignment.clone()
            } else {
                Bytes::new()
            })
    });
    reply
        .with_group_state(StrBytes::from_static_str(group.phase.name()))
        .with_protocol_type(text(group.protocol_type.as_str()))
        .with_protocol_data(text(if settled { group.protocol.as_str() } else { "" }))
        .with_members(members.collect())
}

fn parts(committed: Option<Committed>) -> (i64, i32, StrBytes) {
    committed.map_or((-1, -1, StrBytes::new()), |c| {
        (c.offset, c.leader_epoch, text(c.metadata))
    })
}

/// How often groups are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(100);
