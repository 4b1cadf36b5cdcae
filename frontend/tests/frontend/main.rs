//! The frontend as its callers meet it: over sockets, on the embedded broker and on RabbitMQ.

mod arbitrary;
mod bad_input;
mod good_input;
mod openapi;
mod operators;
mod rabbitmq;
mod rolling_restart;
mod shares;
mod world;
