//! The same task with Restate: a service that a Restate server calls, and its client. The
//! server is told where the service is once, before the first publish, by
//! `restate deployments register`.

use std::time::Duration;

use restate_sdk::ingress::ReqwestClient;
use restate_sdk::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Resize {
    url: String,
    width: u32,
}

#[derive(Serialize, Deserialize)]
struct Thumb {
    key: String,
}

struct Images;

#[service]
impl Images {
    #[handler(
        inactivity_timeout = "25s",
        abort_timeout = "5s",
        invocation_retry_policy(max_attempts = 5, on_max_attempts = "kill")
    )]
    async fn resize(&self, _ctx: Context<'_>, Json(input): Json<Resize>) -> HandlerResult<Json<Thumb>> {
        Ok(Json(Thumb { key: format!("{}@{}", input.url, input.width) }))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = HttpServer::new(Endpoint::builder().bind(Images).build());
    tokio::spawn(server.listen_and_serve("0.0.0.0:9080".parse()?));

    let client = ReqwestClient::connect("http://localhost:8080".parse()?)?;
    let input = Resize { url: "https://example.org/cat.png".into(), width: 320 };
    let key = input.url.clone();
    let sent = ImagesIngressClient::from_client(client)
        .resize(Json(input))
        .idempotency_key(key)
        .send_after(Duration::from_secs(5))
        .await?;
    let Json(thumb) = sent.invocation_handle().attach().await?.into_body();
    println!("{}", thumb.key);
    Ok(())
}
