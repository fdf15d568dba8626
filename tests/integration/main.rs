//! Integration tests: a real `holdfast` process, a real S3 server, real MySQL clients.

mod s3_server;
mod store_on_s3;
