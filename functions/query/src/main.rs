//! The `query` function on AWS Lambda.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_http::Error> {
    lambda_http::tracing::init_default_subscriber();
    let app = quipu_core::config::AppConfig::from_env()?.open()?;
    let (router, _) = quipu_query::routes(app).into_parts();
    lambda_http::run(quipu_core::http::finish(router)).await
}
