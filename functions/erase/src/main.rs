//! The `erase` function on AWS Lambda.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    quipu_core::aws::init_log();
    let app = quipu_core::config::AwsConfig::from_env()?.open()?;
    let (router, _) = quipu_erase::routes(app).into_parts();
    lambda_http::run(quipu_core::http::finish(router)).await
}
