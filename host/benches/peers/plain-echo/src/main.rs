//! The bench's ceiling: what any function host on this web server could reach. One worker, the server's allocator.

use actix_web::{App, HttpResponse, HttpServer, web};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let server = HttpServer::new(|| {
        App::new().route(
            "/",
            web::post().to(|body: web::Json<serde_json::Value>| async move { HttpResponse::Ok().json(body.0) }),
        )
    })
    .workers(1)
    .bind("127.0.0.1:0")?;
    for address in server.addrs() {
        eprintln!("listening on http://{address}");
    }
    server.run().await
}
