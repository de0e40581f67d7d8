//! The `archive` function on AWS Lambda.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use quipu_archive::{Event, Worker};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    quipu_core::aws::init_log();
    let worker = &Worker::from_env()?;
    let handle = async |event: LambdaEvent<serde_json::Value>| {
        let outcome = worker.run(Event::read(&event.payload)?).await?;
        Ok::<_, Error>(outcome.to_json())
    };
    lambda_runtime::run(service_fn(handle)).await
}
