/// A setting that is one thing in the pipeline file and another on the cluster.
///
/// It is told and never changed: a cluster's topics may belong to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The topic: the pipeline's own, that of its rejects, or that of its lease.
    pub topic: String,
    /// Key in `[topic]`, or Kafka's name of a topic setting that falaj relies on.
    pub key: &'static str,
    /// What the file says, or what falaj relies on.
    pub file: String,
    /// What the cluster has.
    pub cluster: String,
}
