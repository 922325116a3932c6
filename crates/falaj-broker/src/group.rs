//! One consumer group: who is in it, and who reads what. The classic protocol, decided as Kafka's
//! own coordinator does.
//!
//! Always: nothing happens but by a call, and each takes the time: tests need no clock.
//! Always: whoever waits is answered exactly once; one who went away meanwhile costs nothing.
//! Absent on purpose: persistence of members. After a restart of the broker they join again, which
//! costs a rebalance and no offset.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use indexmap::IndexMap;
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;
use uuid::Uuid;

/// Characters of a client's name that become part of its member's name.
const NAME_CHARS_MAX: usize = 200;

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nobody is in it.
    Empty,
    /// Members are awaited to join again.
    Joining,
    /// The leader is awaited to give out partitions.
    Syncing,
    Stable,
}

impl Phase {
    /// As clients know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Joining => "PreparingRebalance",
            Self::Syncing => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// What a member may choose, and how many there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub members: usize,
    pub first_rebalance: Duration,
}

/// Who wants to join, and with what.
#[derive(Debug, Clone)]
pub(crate) struct Joining {
    /// Empty for somebody new.
    pub member: String,
    pub instance: Option<String>,
    pub client: String,
    pub host: String,
    pub session: Duration,
    pub rebalance: Duration,
    pub protocol_type: String,
    /// Ways to give out partitions, the liked ones first, each with what the leader needs for it.
    pub protocols: Vec<(String, Bytes)>,
    /// Somebody new is told its name first, and joins with that.
    pub named_first: bool,
    /// A static member that comes back as leader can be told not to give out partitions.
    pub can_skip: bool,
}

/// The answer to [`Group::join`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub error: Option<ResponseError>,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: String,
    pub member: String,
    pub skip_assignment: bool,
    /// For the leader: everybody's name, instance and protocol data.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

impl Joined {
    pub fn refused(error: ResponseError, member: &str) -> Self {
        Self {
            error: Some(error),
            generation: -1,
            protocol: None,
            leader: String::new(),
            member: member.to_owned(),
            skip_assignment: false,
            members: Vec::new(),
        }
    }
}

/// The answer to [`Group::sync`]: the partitions of the member, as the leader wrote them.
pub(crate) type Synced = Result<Bytes, ResponseError>;

/// Somebody in a group.
#[derive(Debug)]
pub(crate) struct Member {
    pub instance: Option<String>,
    pub client: String,
    pub host: String,
    pub protocols: Vec<(String, Bytes)>,
    pub assignment: Bytes,
    session: Duration,
    rebalance: Duration,
    heard: Instant,
    joining: Option<oneshot::Sender<Joined>>,
    syncing: Option<oneshot::Sender<Synced>>,
    /// Took part in this generation's sync.
    synced: bool,
}

impl Member {
    fn data(&self, protocol: &str) -> Bytes {
        let mut protocols = self.protocols.iter();
        protocols
            .find(|(name, _)| name == protocol)
            .map(|(_, data)| data.clone())
            .unwrap_or_default()
    }

    fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }

    /// Whoever waits for an answer is there as long as its connection is.
    fn waits(&self) -> bool {
        self.joining.as_ref().is_some_and(|j| !j.is_closed())
            || self.syncing.as_ref().is_some_and(|s| !s.is_closed())
    }

    fn answer(&mut self, joined: Joined) {
        if let Some(joining) = self.joining.take() {
            // Who waited may be gone.
            let _ = joining.send(joined);
        }
    }

    fn hand_over(&mut self, synced: Synced) {
        if let Some(syncing) = self.syncing.take() {
            // Who waited may be gone.
            let _ = syncing.send(synced);
        }
    }
}

/// A group.
#[derive(Debug)]
pub(crate) struct Group {
    pub phase: Phase,
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    /// By name, in the order of joining.
    pub members: IndexMap<String, Member>,
    leader: String,
    /// Names given to somebody who has not joined with it yet, and until when.
    named: HashMap<String, Instant>,
    /// When a rebalance goes on without those who are missing.
    deadline: Instant,
    /// A rebalance waits at least until then.
    not_before: Instant,
    /// Since when nobody is in it.
    pub empty_since: Instant,
    bounds: Bounds,
}

impl Group {
    pub fn new(bounds: Bounds, now: Instant) -> Self {
        Self {
            phase: Phase::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            members: IndexMap::new(),
            leader: String::new(),
            named: HashMap::new(),
            deadline: now,
            not_before: now,
            empty_since: now,
            bounds,
        }
    }

    /// Whether nobody is in it or about to be.
    pub fn unused(&self) -> bool {
        self.members.is_empty() && self.named.is_empty()
    }

    /// Whether time alone can change something.
    pub fn ticking(&self) -> bool {
        !self.unused()
    }

    /// Takes somebody in, once the others have joined again.
    pub fn join(&mut self, who: Joining, answer: oneshot::Sender<Joined>, now: Instant) {
        match self.admit(&who, now) {
            Ok(Admission::Waits(name)) => {
                let member = self.seat(&name, who, now);
                member.joining = Some(answer);
                self.rebalance(now);
                self.tick(now);
            }
            Ok(Admission::Answered(joined)) => {
                // Who waited may be gone.
                let _ = answer.send(*joined);
            }
            Err(error) => {
                let _ = answer.send(Joined::refused(error, &who.member));
            }
        }
    }

    fn admit(&mut self, who: &Joining, now: Instant) -> Result<Admission, ResponseError> {
        if who.protocol_type.is_empty() || who.protocols.is_empty() {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        let replaced = match &who.instance {
            Some(instance) => {
                let current = self.by_instance(instance);
                match current {
                    Some(current) if who.member.is_empty() => Some(current),
                    Some(current) if current != who.member => {
                        return Err(ResponseError::FencedInstanceId);
                    }
                    _ => None,
                }
            }
            None => None,
        };
        let others = || {
            self.members
                .iter()
                .filter(|(name, _)| **name != who.member && Some(*name) != replaced.as_ref())
                .map(|(_, member)| member)
        };
        let common = |protocol: &str| others().all(|m| m.supports(protocol));
        if others().next().is_some()
            && (who.protocol_type != self.protocol_type
                || !who.protocols.iter().any(|(name, _)| common(name)))
        {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        if let Some(old) = replaced {
            return Ok(self.replace(&old, who, now));
        }
        if who.member.is_empty() {
            return self.newcomer(who, now);
        }
        if self.named.remove(&who.member).is_some() {
            return Ok(Admission::Waits(who.member.clone()));
        }
        let member = self
            .members
            .get_mut(&who.member)
            .ok_or(ResponseError::UnknownMemberId)?;
        if who.instance.is_some() && member.instance != who.instance {
            return Err(ResponseError::UnknownMemberId);
        }
        let same = member.protocols == who.protocols;
        let leads = self.leader == who.member;
        // Its answer got lost, or it asks once more: nothing has changed for the others.
        let settled = match self.phase {
            Phase::Syncing => same,
            Phase::Stable => same && !leads,
            Phase::Joining | Phase::Empty => false,
        };
        if settled {
            member.heard = now;
            let members = if leads { self.roster() } else { Vec::new() };
            return Ok(self.current(who.member.clone(), members));
        }
        Ok(Admission::Waits(who.member.clone()))
    }

    fn newcomer(&mut self, who: &Joining, now: Instant) -> Result<Admission, ResponseError> {
        if self.members.len() + self.named.len() >= self.bounds.members {
            return Err(ResponseError::GroupMaxSizeReached);
        }
        let name = new_name(who);
        if who.named_first && who.instance.is_none() {
            self.named.insert(name.clone(), now + who.session);
            return Ok(Admission::Answered(Box::new(Joined::refused(
                ResponseError::MemberIdRequired,
                &name,
            ))));
        }
        Ok(Admission::Waits(name))
    }

    /// A static member came back under a new name and takes its old seat.
    fn replace(&mut self, old: &str, who: &Joining, now: Instant) -> Admission {
        let name = new_name(who);
        let (index, _, mut member) = self
            .members
            .shift_remove_full(old)
            .expect("the seat was found just now");
        member.answer(Joined::refused(ResponseError::FencedInstanceId, old));
        member.hand_over(Err(ResponseError::FencedInstanceId));
        member.protocols.clone_from(&who.protocols);
        member.heard = now;
        self.members.shift_insert(index, name.clone(), member);
        let led = self.leader == old;
        if led {
            self.leader.clone_from(&name);
        }
        if self.phase == Phase::Stable && self.vote() == self.protocol {
            // Nothing changes for the others. Who led must not give out partitions now, since
            // nobody asks for them: it is told so, or that somebody else leads.
            let Admission::Answered(mut joined) = self.current(name, Vec::new()) else {
                unreachable!("a current generation is an answer");
            };
            if led && who.can_skip {
                joined.skip_assignment = true;
                joined.members = self.roster();
            } else if led {
                old.clone_into(&mut joined.leader);
            }
            return Admission::Answered(joined);
        }
        Admission::Waits(name)
    }

    fn by_instance(&self, instance: &str) -> Option<String> {
        self.members
            .iter()
            .find(|(_, m)| m.instance.as_deref() == Some(instance))
            .map(|(name, _)| name.clone())
    }

    fn seat(&mut self, name: &str, who: Joining, now: Instant) -> &mut Member {
        self.protocol_type = who.protocol_type;
        let member = self
            .members
            .entry(name.to_owned())
            .or_insert_with(|| Member {
                instance: who.instance,
                client: who.client,
                host: who.host,
                protocols: Vec::new(),
                assignment: Bytes::new(),
                session: who.session,
                rebalance: who.rebalance,
                heard: now,
                joining: None,
                syncing: None,
                synced: false,
            });
        member.protocols = who.protocols;
        member.session = who.session;
        member.rebalance = who.rebalance;
        member.heard = now;
        member
    }

    fn current(&self, member: String, members: Vec<(String, Option<String>, Bytes)>) -> Admission {
        Admission::Answered(Box::new(Joined {
            error: None,
            generation: self.generation,
            protocol: Some(self.protocol.clone()),
            leader: self.leader.clone(),
            member,
            skip_assignment: false,
            members,
        }))
    }

    fn roster(&self) -> Vec<(String, Option<String>, Bytes)> {
        self.members
            .iter()
            .map(|(name, m)| (name.clone(), m.instance.clone(), m.data(&self.protocol)))
            .collect()
    }

    /// The protocol that all support and most like best; the first one liked where they differ.
    fn vote(&self) -> String {
        let mut votes: IndexMap<&str, usize> = IndexMap::new();
        for member in self.members.values() {
            let choice = member
                .protocols
                .iter()
                .map(|(name, _)| name.as_str())
                .find(|name| self.members.values().all(|m| m.supports(name)));
            if let Some(choice) = choice {
                *votes.entry(choice).or_default() += 1;
            }
        }
        let most = votes.values().max().copied().unwrap_or(0);
        votes
            .into_iter()
            .find(|(_, count)| *count == most)
            .map(|(name, _)| name.to_owned())
            .unwrap_or_default()
    }

    /// Asks everybody to join again.
    fn rebalance(&mut self, now: Instant) {
        if self.phase == Phase::Joining {
            return;
        }
        for member in self.members.values_mut() {
            member.hand_over(Err(ResponseError::RebalanceInProgress));
        }
        let patience = self.members.values().map(|m| m.rebalance).max();
        self.deadline = now + patience.unwrap_or_default();
        self.not_before = match self.phase {
            Phase::Empty => (now + self.bounds.first_rebalance).min(self.deadline),
            _ => now,
        };
        self.phase = Phase::Joining;
    }

    /// What time brings: sessions that end, and rebalances that go on without those missing.
    pub fn tick(&mut self, now: Instant) {
        self.named.retain(|_, until| *until > now);
        let gone = |m: &Member| !m.waits() && now.saturating_duration_since(m.heard) > m.session;
        self.drop_members(now, |m| gone(m));
        match self.phase {
            Phase::Joining => {
                let late = now >= self.deadline;
                if late {
                    // Static members keep their seat until their session ends.
                    self.members
                        .retain(|_, m| m.joining.is_some() || m.instance.is_some());
                }
                let all =
                    self.named.is_empty() && self.members.values().all(|m| m.joining.is_some());
                if now >= self.not_before && (all || late) {
                    self.begin(now);
                }
            }
            Phase::Syncing if now >= self.deadline => {
                self.drop_members(now, |m| !m.synced && m.syncing.is_none());
            }
            _ => {}
        }
    }

    fn drop_members(&mut self, now: Instant, gone: impl Fn(&Member) -> bool) {
        let before = self.members.len();
        self.members.retain(|_, m| !gone(m));
        if self.members.len() < before {
            self.rebalance(now);
        }
    }

    /// Begins a generation with those who joined.
    fn begin(&mut self, now: Instant) {
        self.generation = self.generation.wrapping_add(1).max(1);
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            self.empty_since = now;
            self.protocol.clear();
            self.leader.clear();
            return;
        }
        let here = |m: &Member| m.joining.is_some();
        if !self.members.get(&self.leader).is_some_and(here) {
            let first = self.members.iter().find(|(_, m)| here(m));
            match first.or_else(|| self.members.first()) {
                Some((name, _)) => self.leader = name.clone(),
                None => unreachable!("there are members"),
            }
        }
        self.protocol = self.vote();
        self.phase = Phase::Syncing;
        let patience = self.members.values().map(|m| m.rebalance).max();
        self.deadline = now + patience.unwrap_or_default();
        let roster = self.roster();
        for (name, member) in &mut self.members {
            member.synced = false;
            if !here(member) {
                // A static member that is away keeps its seat; its session goes on running.
                continue;
            }
            member.heard = now;
            member.answer(Joined {
                error: None,
                generation: self.generation,
                protocol: Some(self.protocol.clone()),
                leader: self.leader.clone(),
                member: name.clone(),
                skip_assignment: false,
                members: if *name == self.leader {
                    roster.clone()
                } else {
                    Vec::new()
                },
            });
        }
    }

    /// The member, if it is one of this generation.
    fn member(
        &mut self,
        name: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<&mut Member, ResponseError> {
        if let Some(instance) = instance {
            match self.by_instance(instance) {
                None => return Err(ResponseError::UnknownMemberId),
                Some(current) if current != name => return Err(ResponseError::FencedInstanceId),
                Some(_) => {}
            }
        }
        let ours = self.generation;
        let member = self
            .members
            .get_mut(name)
            .ok_or(ResponseError::UnknownMemberId)?;
        if generation == ours {
            Ok(member)
        } else {
            Err(ResponseError::IllegalGeneration)
        }
    }

    /// Gives a member its partitions, once the leader has said what whose are.
    pub fn sync(&mut self, who: &Syncing, answer: oneshot::Sender<Synced>, now: Instant) {
        if let Err(error) = self.check_sync(who) {
            // Who waited may be gone.
            let _ = answer.send(Err(error));
            return;
        }
        let (phase, leads) = (self.phase, self.leader == who.member);
        let Some(member) = self.members.get_mut(&who.member) else {
            return;
        };
        member.heard = now;
        member.synced = true;
        match phase {
            Phase::Empty | Phase::Joining => {
                let _ = answer.send(Err(ResponseError::RebalanceInProgress));
            }
            Phase::Stable => {
                let _ = answer.send(Ok(member.assignment.clone()));
            }
            Phase::Syncing => {
                member.syncing = Some(answer);
                if leads {
                    self.hand_out(&who.assignments, now);
                }
            }
        }
    }

    fn check_sync(&mut self, who: &Syncing) -> Result<(), ResponseError> {
        self.member(&who.member, who.instance.as_deref(), who.generation)?;
        let differs = |ours: &str, theirs: &Option<String>| {
            theirs.as_ref().is_some_and(|theirs| theirs != ours)
        };
        if differs(&self.protocol_type, &who.protocol_type)
            || (self.phase != Phase::Joining && differs(&self.protocol, &who.protocol))
        {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn hand_out(&mut self, assignments: &[(String, Bytes)], now: Instant) {
        let mut by_name: HashMap<&str, &Bytes> = assignments
            .iter()
            .map(|(name, a)| (name.as_str(), a))
            .collect();
        self.phase = Phase::Stable;
        for (name, member) in &mut self.members {
            // A copy: the request that it came in is not to stay in memory for it.
            let assignment = by_name.remove(name.as_str());
            member.assignment = assignment.map_or_else(Bytes::new, |a| Bytes::copy_from_slice(a));
            if member.syncing.is_some() {
                member.heard = now;
                let assignment = member.assignment.clone();
                member.hand_over(Ok(assignment));
            }
        }
    }

    /// A sign of life.
    pub fn heartbeat(
        &mut self,
        name: &str,
        instance: Option<&str>,
        generation: i32,
        now: Instant,
    ) -> Result<(), ResponseError> {
        let member = self.member(name, instance, generation)?;
        member.heard = now;
        match self.phase {
            Phase::Joining => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Whether offsets may be committed; `generation` is below 0 for who is in no group.
    pub fn may_commit(
        &mut self,
        name: &str,
        instance: Option<&str>,
        generation: i32,
        now: Instant,
    ) -> Result<(), ResponseError> {
        if generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        if generation < 0 && name.is_empty() && instance.is_none() {
            return Err(ResponseError::UnknownMemberId);
        }
        self.member(name, instance, generation)?.heard = now;
        match self.phase {
            // Partitions are being given out again: who had one may not have it any more.
            Phase::Syncing => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Takes somebody out.
    pub fn leave(
        &mut self,
        name: &str,
        instance: Option<&str>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        let name = match instance.map(|i| self.by_instance(i)) {
            None => name.to_owned(),
            Some(None) => return Err(ResponseError::UnknownMemberId),
            Some(Some(current)) if name.is_empty() || name == current => current,
            Some(Some(_)) => return Err(ResponseError::FencedInstanceId),
        };
        if self.named.remove(&name).is_some() {
            self.tick(now);
            return Ok(());
        }
        let mut member = self
            .members
            .shift_remove(&name)
            .ok_or(ResponseError::UnknownMemberId)?;
        member.answer(Joined::refused(ResponseError::UnknownMemberId, &name));
        member.hand_over(Err(ResponseError::UnknownMemberId));
        self.rebalance(now);
        self.tick(now);
        Ok(())
    }
}

/// Who asks for its partitions, and what the leader says.
#[derive(Debug, Clone)]
pub(crate) struct Syncing {
    pub member: String,
    pub instance: Option<String>,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignments: Vec<(String, Bytes)>,
}

enum Admission {
    /// It has this name, and is answered when the generation begins.
    Waits(String),
    Answered(Box<Joined>),
}

fn new_name(who: &Joining) -> String {
    let stem = who.instance.as_ref().unwrap_or(&who.client);
    let stem: String = stem.chars().take(NAME_CHARS_MAX).collect();
    format!("{stem}-{}", Uuid::new_v4())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Duration = Duration::from_secs(10);
    const REBALANCE: Duration = Duration::from_mins(1);

    /// A group with a clock of its own.
    struct Scene {
        group: Group,
        now: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let now = Instant::now();
            let bounds = Bounds {
                members: 10,
                first_rebalance: Duration::ZERO,
            };
            Self {
                group: Group::new(bounds, now),
                now,
            }
        }

        fn join_with(
            &mut self,
            member: &str,
            instance: Option<&str>,
            protocols: &[&str],
        ) -> oneshot::Receiver<Joined> {
            let who = Joining {
                member: member.into(),
                instance: instance.map(Into::into),
                client: "client".into(),
                host: "/127.0.0.1".into(),
                session: SESSION,
                rebalance: REBALANCE,
                protocol_type: "consumer".into(),
                protocols: protocols
                    .iter()
                    .map(|p| ((*p).into(), Bytes::from_static(b"data")))
                    .collect(),
                named_first: false,
                can_skip: false,
            };
            let (tell, told) = oneshot::channel();
            self.group.join(who, tell, self.now);
            told
        }

        fn join(&mut self, member: &str) -> oneshot::Receiver<Joined> {
            self.join_with(member, None, &["range"])
        }

        fn sync(
            &mut self,
            member: &str,
            gives: &[(&str, &'static [u8])],
        ) -> oneshot::Receiver<Synced> {
            let who = Syncing {
                member: member.into(),
                instance: None,
                generation: self.group.generation,
                protocol_type: None,
                protocol: None,
                assignments: gives
                    .iter()
                    .map(|(name, what)| ((*name).into(), Bytes::from_static(what)))
                    .collect(),
            };
            let (tell, told) = oneshot::channel();
            self.group.sync(&who, tell, self.now);
            told
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
            self.group.tick(self.now);
        }

        fn beat(&mut self, member: &str) -> Result<(), ResponseError> {
            let generation = self.group.generation;
            self.group.heartbeat(member, None, generation, self.now)
        }

        /// Two members in a stable group, the leader first.
        fn pair() -> (Self, String, String) {
            let mut scene = Self::new();
            let one = scene.join("").try_recv().unwrap().member;
            let mut second = scene.join("");
            let mut first = scene.join(&one);
            assert_eq!(first.try_recv().unwrap().leader, one);
            let two = second.try_recv().unwrap().member;
            let mut second = scene.sync(&two, &[]);
            assert!(second.try_recv().is_err(), "it waits for the leader");
            let mut first = scene.sync(&one, &[(&one, b"a"), (&two, b"b")]);
            assert_eq!(first.try_recv().unwrap(), Ok(Bytes::from_static(b"a")));
            assert_eq!(second.try_recv().unwrap(), Ok(Bytes::from_static(b"b")));
            assert_eq!(scene.group.phase, Phase::Stable);
            (scene, one, two)
        }
    }

    #[test]
    fn a_member_that_falls_silent_is_dropped_after_its_session() {
        let (mut scene, one, two) = Scene::pair();
        for _ in 0..2 {
            scene.pass(SESSION / 2);
            assert_eq!(scene.beat(&one), Ok(()));
            assert!(scene.group.members.contains_key(&two));
        }
        // Now the other one has said nothing for longer than its session.
        scene.pass(SESSION / 2);
        assert!(!scene.group.members.contains_key(&two));
        assert_eq!(scene.beat(&two), Err(ResponseError::UnknownMemberId));
        assert_eq!(scene.group.phase, Phase::Joining);
        assert_eq!(scene.beat(&one), Err(ResponseError::RebalanceInProgress));
        let generation = scene.group.generation;
        let joined = scene.join(&one).try_recv().unwrap();
        assert_eq!(
            (joined.generation, joined.members.len()),
            (generation + 1, 1)
        );
    }

    #[test]
    fn a_rebalance_goes_on_without_who_does_not_join_again() {
        let (mut scene, one, two) = Scene::pair();
        let mut third = scene.join("");
        let mut first = scene.join(&one);
        for _ in 0..REBALANCE.as_secs() / 5 {
            assert!(third.try_recv().is_err() && first.try_recv().is_err());
            // It is alive, and does not come.
            let _ = scene.beat(&two);
            scene.pass(Duration::from_secs(5));
        }
        let joined = first.try_recv().unwrap();
        assert_eq!(
            (joined.leader.as_str(), joined.members.len()),
            (one.as_str(), 2)
        );
        assert!(third.try_recv().is_ok());
        assert_eq!(scene.beat(&two), Err(ResponseError::UnknownMemberId));
    }

    #[test]
    fn a_leader_that_gives_out_nothing_is_replaced() {
        let (mut scene, one, two) = Scene::pair();
        let mut second = scene.join_with(&two, None, &["range", "sticky"]);
        drop(scene.join(&one));
        assert_eq!(second.try_recv().unwrap().leader, one);
        let mut waiting = scene.sync(&two, &[]);
        scene.pass(SESSION * 2);
        assert_eq!(
            waiting.try_recv().unwrap(),
            Err(ResponseError::RebalanceInProgress)
        );
        let joined = scene.join(&two).try_recv().unwrap();
        assert_eq!(
            (joined.leader.as_str(), joined.members.len()),
            (two.as_str(), 1)
        );
    }

    #[test]
    fn the_protocol_is_one_that_all_support_and_most_like() {
        // (what each likes, in order; the choice)
        for (likes, choice) in [
            (
                &[&["range", "sticky"][..], &["range", "sticky"]][..],
                "range",
            ),
            (&[&["range", "sticky"], &["sticky"]], "sticky"),
            (
                &[
                    &["range", "sticky"],
                    &["sticky", "range"],
                    &["sticky", "range"],
                ],
                "sticky",
            ),
        ] {
            let mut scene = Scene::new();
            // Each newcomer makes all before it join again.
            let mut members: Vec<(String, &[&str])> = Vec::new();
            for likes in likes {
                let mut new = scene.join_with("", None, likes);
                for (member, likes) in &members {
                    drop(scene.join_with(member, None, likes));
                }
                members.push((new.try_recv().unwrap().member, likes));
            }
            assert_eq!(scene.group.protocol, choice, "{likes:?}");
        }
        let mut scene = Scene::new();
        let _one = scene.join_with("", None, &["range"]);
        let refused = scene.join_with("", None, &["sticky"]).try_recv().unwrap();
        assert_eq!(
            refused.error,
            Some(ResponseError::InconsistentGroupProtocol)
        );
    }

    #[test]
    fn asking_again_gives_the_same_answer_without_a_rebalance() {
        let (mut scene, one, two) = Scene::pair();
        let generation = scene.group.generation;
        // The other member's answer got lost; as long as nothing changed, nobody is disturbed.
        let joined = scene
            .join_with(&two, None, &["range"])
            .try_recv()
            .expect("an answer at once");
        assert_eq!((joined.generation, joined.error), (generation, None));
        assert_eq!(
            scene.sync(&two, &[]).try_recv().unwrap(),
            Ok(Bytes::from_static(b"b"))
        );
        assert_eq!(scene.group.phase, Phase::Stable);
        // The leader that joins again wants a rebalance.
        drop(scene.join(&one));
        assert_eq!(scene.group.phase, Phase::Joining);
    }

    #[test]
    fn static_members_keep_their_seat_until_their_session_ends() {
        let mut scene = Scene::new();
        let one = scene
            .join_with("", Some("a"), &["range"])
            .try_recv()
            .unwrap()
            .member;
        drop(scene.sync(&one, &[(&one, b"all")]));
        // It comes back as leader, by a client that cannot be told to skip: another one leads.
        let back = scene
            .join_with("", Some("a"), &["range"])
            .try_recv()
            .unwrap();
        assert_eq!((back.generation, back.error), (1, None));
        assert_ne!(back.member, one);
        assert_eq!(
            back.leader, one,
            "nobody, so that nobody gives out partitions"
        );
        assert_eq!(
            scene
                .join_with(&one, Some("a"), &["range"])
                .try_recv()
                .unwrap()
                .error,
            Some(ResponseError::FencedInstanceId)
        );
        assert_eq!(
            scene.sync(&back.member, &[]).try_recv().unwrap(),
            Ok(Bytes::from_static(b"all"))
        );
        assert_eq!(
            scene.group.leave("", Some("b"), scene.now),
            Err(ResponseError::UnknownMemberId)
        );
        assert_eq!(
            scene.group.leave(&one, Some("a"), scene.now),
            Err(ResponseError::FencedInstanceId)
        );
        scene.pass(SESSION * 2);
        assert!(scene.group.unused());
        assert_eq!(scene.group.phase, Phase::Empty);
    }

    #[test]
    fn chance_never_leaves_anybody_waiting_for_ever() {
        // Members join, sync, beat, leave and vanish at random; then everybody falls silent. Whoever
        // waited has an answer, and the group is empty in the end.
        for seed in 1..200 {
            let mut dice = fastrand::Rng::with_seed(seed);
            let mut scene = Scene::new();
            let mut names: Vec<String> = Vec::new();
            let mut joins = Vec::new();
            let mut syncs = Vec::new();
            for _ in 0..200 {
                let name = dice.choice(&names).cloned().unwrap_or_default();
                match dice.u8(..8) {
                    0 => joins.push(scene.join("")),
                    1 => joins.push(scene.join_with("", Some("seat"), &["range", "sticky"])),
                    2 => joins.push(scene.join(&name)),
                    3 => {
                        let gives: Vec<(&str, &'static [u8])> =
                            names.iter().map(|n| (n.as_str(), &b"x"[..])).collect();
                        syncs.push(scene.sync(&name, &gives));
                    }
                    4 => {
                        let _ = scene.beat(&name);
                    }
                    5 => {
                        let _ = scene.group.leave(&name, None, scene.now);
                    }
                    // The connection of whoever waits is gone.
                    6 if !joins.is_empty() => drop(joins.swap_remove(dice.usize(..joins.len()))),
                    _ => scene.pass(Duration::from_millis(dice.u64(..3000))),
                }
                joins.retain_mut(|join| match join.try_recv() {
                    Ok(joined) => {
                        names.push(joined.member);
                        false
                    }
                    Err(oneshot::error::TryRecvError::Empty) => true,
                    Err(oneshot::error::TryRecvError::Closed) => false,
                });
                names.retain(|_| dice.u8(..30) > 0);
            }
            for _ in 0..200 {
                scene.pass(Duration::from_secs(5));
            }
            for mut join in joins {
                assert!(
                    !matches!(join.try_recv(), Err(oneshot::error::TryRecvError::Empty)),
                    "seed {seed}: somebody waits to join"
                );
            }
            for mut sync in syncs {
                assert!(
                    !matches!(sync.try_recv(), Err(oneshot::error::TryRecvError::Empty)),
                    "seed {seed}: somebody waits for partitions"
                );
            }
            assert!(scene.group.unused(), "seed {seed}: {:?}", scene.group);
            assert_eq!(scene.group.phase, Phase::Empty, "seed {seed}");
        }
    }
}
