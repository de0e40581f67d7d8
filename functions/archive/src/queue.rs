//! The queue of tenants on SQS.

use async_trait::async_trait;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;

use crate::Dispatch;

/// Messages in one request (service quota of SendMessageBatch).
const MESSAGES_MAX: usize = 10;

/// A queue of SQS.
#[derive(Debug, Clone)]
pub struct SqsQueue {
    client: aws_sdk_sqs::Client,
    url: String,
}

impl SqsQueue {
    /// The queue with this URL.
    pub fn new(connection: &quipu_core::aws::Connection, url: &str) -> Self {
        let config = connection.for_service("AWS_ENDPOINT_URL_SQS");
        Self { client: aws_sdk_sqs::Client::new(&config), url: url.to_owned() }
    }
}

#[async_trait]
impl Dispatch for SqsQueue {
    async fn send(&self, bodies: Vec<String>) -> Result<(), String> {
        for chunk in bodies.chunks(MESSAGES_MAX) {
            let mut request = self.client.send_message_batch().queue_url(&self.url);
            for (index, body) in chunk.iter().enumerate() {
                let entry = SendMessageBatchRequestEntry::builder().id(index.to_string()).message_body(body);
                request = request.entries(entry.build().map_err(|e| e.to_string())?);
            }
            let sent = request.send().await.map_err(|e| format!("{:?}", e.into_service_error()))?;
            if let Some(failed) = sent.failed().first() {
                return Err(format!("{}: {}", failed.code(), failed.message().unwrap_or_default()));
            }
        }
        Ok(())
    }
}
