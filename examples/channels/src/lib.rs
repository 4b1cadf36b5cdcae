//! Social channels: streams of a social network that are followed for as long as they are on, filtered, and repeated; and posts on
//! schedules. Each status has its effect once, whatever is killed when.
//!
//! - [`service::Channels`] is all of it, running: channels are switched on and off, edited, and looked at;
//! - [`network::Network`] is what it needs of a social network; [`mastodon::Mastodon`] is that for servers with Mastodon's API;
//! - [`follow`] is the task of a channel, [`bolts`] the topology behind all of them, [`post`] how posts are sent;
//! - [`local`] is a server with the same API that replays recorded statuses, for the demo and the tests.

pub mod accounts;
pub mod bolts;
pub mod channel;
pub mod context;
pub mod demo;
pub mod filter;
pub mod follow;
pub mod html;
pub mod length;
pub mod local;
pub mod mastodon;
pub mod meter;
pub mod network;
pub mod page;
pub mod pages;
pub mod post;
pub mod progress;
pub mod service;
pub mod status;
pub mod store;
pub mod web;
