//! Stores on an emulated DynamoDB.

use std::sync::Arc;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use quipu_core::aws::Connection;
use quipu_core::clock::Clock;
use quipu_core::store::dynamo::DynamoStore;

use crate::Emulator;
use crate::emulator::fresh_table;

/// A connection to an emulator, or to a proxy before one. S3 is where DynamoDB is.
pub fn connection(dynamodb: &str, kms: Option<&str>) -> Connection {
    let credentials = Credentials::new("test", "test", None, None, "test");
    let credentials = SharedCredentialsProvider::new(credentials);
    Connection::at("us-east-1".into(), credentials, Some(dynamodb.into()), kms.map(str::to_owned))
        .at_s3(Some(dynamodb.into()))
}

/// A store on a table of its own.
pub fn fresh_store(emulator: &Emulator) -> Arc<DynamoStore> {
    store_at(emulator.url(), &fresh_table(emulator.url()))
}

/// A store on a table that is there.
pub fn store_at(url: &str, table: &str) -> Arc<DynamoStore> {
    Arc::new(DynamoStore::new(&connection(url, None), table))
}

/// The same, with a clock of the test's to say what has expired.
pub fn store_with_clock(url: &str, table: &str, clock: Arc<dyn Clock>) -> Arc<DynamoStore> {
    Arc::new(DynamoStore::new(&connection(url, None), table).with_clock(clock))
}
