//! Opening databases on a real server: for the first time, again, at once, and where it cannot be.

use galerna_postgres::{OpenError, Step, is_transient, open};
use galerna_test_servers::Postgres;

const FIRST: Step = Step { version: 1, name: "words", sql: "CREATE TABLE words (word text PRIMARY KEY)" };
const SECOND: Step = Step { version: 2, name: "counts", sql: "ALTER TABLE words ADD count bigint" };

#[tokio::test]
async fn tables_are_made_once_and_changed_once_whoever_opens_them_at_the_same_time() {
    let url = Postgres::shared().await.database().await;
    let opened = tokio::join!(open(&url, &[FIRST]), open(&url, &[FIRST]), open(&url, &[FIRST]));
    let (pool, _, _) =
        (opened.0.expect("it opens"), opened.1.expect("it opens"), opened.2.expect("it opens"));
    sqlx::query("INSERT INTO words VALUES ('one')").execute(&pool).await.expect("the table is there");
    let pool = open(&url, &[FIRST, SECOND]).await.expect("it opens");
    let words: Vec<(String, Option<i64>)> =
        sqlx::query_as("SELECT word, count FROM words").fetch_all(&pool).await.expect("it is changed");
    assert_eq!(words, [("one".to_owned(), None)]);
}

#[tokio::test]
async fn a_database_of_a_newer_version_or_of_another_program_is_refused() {
    let url = Postgres::shared().await.database().await;
    open(&url, &[FIRST, SECOND]).await.expect("it opens");
    for steps in [&[FIRST][..], &[Step { sql: "CREATE TABLE lines (name text)", ..FIRST }, SECOND][..]] {
        let error = open(&url, steps).await.expect_err("it is not ours");
        assert!(matches!(error, OpenError::Tables(_)) && !error.is_transient(), "{error}");
    }
}

#[tokio::test]
async fn an_address_that_is_none_and_a_database_that_is_not_there_are_told() {
    let error = open("mysql://localhost/x", &[]).await.expect_err("it is no address");
    assert!(matches!(error, OpenError::Address(_)), "{error}");
    let url = Postgres::shared().await.database().await;
    let error = open(&format!("{url}_not"), &[]).await.expect_err("it is not there");
    assert!(matches!(error, OpenError::Refused(..)) && !error.is_transient(), "{error}");
}

#[tokio::test]
async fn what_a_server_that_was_killed_leaves_undone_passes_and_what_it_refuses_does_not() {
    let server = Postgres::start().await;
    let pool = open(&server.database().await, &[FIRST]).await.expect("it opens");
    let insert = || sqlx::query("INSERT INTO words VALUES ('one')").execute(&pool);
    insert().await.expect("it is inserted");
    let twice = insert().await.expect_err("it is there");
    assert!(!is_transient(&twice), "{twice}");
    server.kill().await;
    let lost = insert().await.expect_err("nobody is there");
    assert!(is_transient(&lost), "{lost}");
    server.restart().await;
    let twice = insert().await.expect_err("it is still there");
    assert!(!is_transient(&twice), "{twice}");
}
