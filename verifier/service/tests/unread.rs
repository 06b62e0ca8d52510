//! Answers that their caller does not take.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::common::Running;

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_taken_keeps_its_place_and_ends_its_connection() {
    let service = Running::with(|file| {
        file.limits.requests_of_one = 1;
        file.limits.request_seconds = 2;
    })
    .await;
    let authorization = format!("Bearer {}", service.key);
    let ask = async || {
        let request = service.client.get(service.url("/v1/policies")).bearer_auth(&service.key);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(ask().await.0, 200);

    // Room for nothing of an answer but its head.
    let stream = TcpStream::connect(service.address).await.unwrap();
    let (client, connection) =
        h2::client::Builder::new().initial_window_size(0).handshake::<_, &[u8]>(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get(service.url("/v1/policies")).header("authorization", authorization);
    let (response, _) = client.ready().await.unwrap().send_request(request.body(()).unwrap(), true).unwrap();
    let held = response.await.unwrap();
    assert_eq!(held.status(), 200);
    let (status, said) = ask().await;
    assert!(status == 503 && said.contains("caller-busy"), "{status} {said}");

    let ended = timeout(Duration::from_mins(1), connection).await;
    assert!(ended.is_ok(), "whoever takes nothing is hung up on");
    drop(held);
    // Its answers are let go of behind it.
    let free = async {
        while ask().await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(Duration::from_secs(30), free).await.is_ok(), "and the place is free again");
    service.stop().await;
}
