//! What each command does, once the command line is read.

pub mod broker;
pub mod check;
pub mod demo;
pub mod init;
pub mod random_user;
pub mod rejects;
pub mod reset;
pub mod run;
pub mod tap;
pub mod topic;
