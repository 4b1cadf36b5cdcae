//! `galerna rules`, `endpoints`, `silences`, `deliveries`, `alerts` and `audit`: what operators do on the page, through its API.

mod args;
mod kept;

use serde_json::{Value, json};

pub(crate) use self::args::AlertingCommand;
use self::args::{
    AlertsArgs, AlertsCommand, AuditArgs, AuditCommand, Cut, DeliveriesArgs, DeliveriesCommand, SilencesArgs,
    SilencesCommand,
};
use self::kept::{ENDPOINTS, RULES, kept};
use crate::commands::alert_tables as tables;
use crate::form::{Form, all_pages};
use crate::page_client::PageApi;
use galerna_settings::Settings;

/// Things asked for at once.
const MOST: usize = 500;

/// Runs the command.
///
/// # Errors
/// The page cannot be reached or refuses; a file that holds nothing to save.
pub(crate) async fn run(command: AlertingCommand, settings: &Settings) -> anyhow::Result<()> {
    let api = PageApi::new(settings)?;
    match command {
        AlertingCommand::Rules(args) => kept(&RULES, args, &api).await,
        AlertingCommand::Endpoints(args) => kept(&ENDPOINTS, args, &api).await,
        AlertingCommand::Silences(args) => silences(args, &api).await,
        AlertingCommand::Deliveries(args) => deliveries(args, &api).await,
        AlertingCommand::Alerts(AlertsArgs {
            form,
            command: AlertsCommand::List { firing, account, cut },
        }) => {
            let given = [("firing", firing.then(|| "true".to_owned())), ("account", account)];
            let list = if firing { "firing" } else { "events" };
            let found = pages(&api, "/api/alerts", list, given, &cut).await?;
            form.list(&found, &if firing { tables::firing(&found) } else { tables::events(&found) })
        }
        AlertingCommand::Alerts(AlertsArgs {
            form,
            command: AlertsCommand::Close { rule, source, device, reason },
        }) => {
            let body = json!({"rule": rule, "source": source, "device": device, "reason": reason});
            act(&api, "/api/alerts/close", &body, &form).await
        }
        AlertingCommand::Audit(AuditArgs { form, command: AuditCommand::List { search, cut } }) => {
            let found = pages(&api, "/api/audit", "entries", [("search", search)], &cut).await?;
            form.list(&found, &tables::audit(&found))
        }
    }
}

/// The page that is asked for, or all of them in one answer.
async fn pages<const N: usize>(
    api: &PageApi,
    path: &str,
    list: &str,
    given: [(&'static str, Option<String>); N],
    cut: &Cut,
) -> anyhow::Result<Value> {
    let given: Vec<_> = given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let given = &given;
    let fetch = |page: usize, limit: usize| async move {
        let cut = [("page", page.to_string()), ("limit", limit.to_string())];
        api.get(path, &[&given[..], &cut].concat()).await
    };
    if cut.all {
        all_pages(list, MOST, |page| fetch(page, MOST)).await
    } else {
        fetch(cut.page, cut.limit).await
    }
}

/// An action without its parameters that are not given.
fn body<const N: usize>(given: [(&str, Option<Value>); N]) -> Value {
    given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// The body of an action on one thing.
fn on(id: &str, reason: Option<String>) -> Value {
    body([("id", Some(json!(id))), ("reason", reason.map(Value::from))])
}

async fn act(api: &PageApi, path: &str, body: &Value, form: &Form) -> anyhow::Result<()> {
    let answer = api.post(path, body).await?;
    form.done(&answer, &tables::text(&answer["done"]))
}

async fn silences(args: SilencesArgs, api: &PageApi) -> anyhow::Result<()> {
    match args.command {
        SilencesCommand::List => {
            let found = api.get("/api/silences", &[]).await?;
            let all = &found["silences"];
            args.form.list(all, &tables::silences(tables::items(all)))
        }
        SilencesCommand::Create { account, device, rule, until, lasting, minutes, reason } => {
            let minutes = minutes.or(lasting.map(|lasting| lasting.as_secs_f64() / 60.0));
            let body = body([
                ("account", account.map(Value::from)),
                ("device", device.map(Value::from)),
                ("rule", rule.map(Value::from)),
                ("until", until.map(Value::from)),
                ("minutes", minutes.map(Value::from)),
                ("reason", Some(reason.into())),
            ]);
            let answer = api.post("/api/silences/create", &body).await?;
            let (done, id) = (tables::text(&answer["done"]), tables::text(&answer["id"]));
            args.form.done(&answer, &format!("{done}; `galerna silences end {id}` ends it"))
        }
        SilencesCommand::End { id, reason } => {
            act(api, "/api/silences/end", &on(&id, reason.reason), &args.form).await
        }
    }
}

async fn deliveries(args: DeliveriesArgs, api: &PageApi) -> anyhow::Result<()> {
    match args.command {
        DeliveriesCommand::List { status, endpoint, account, search, cut } => {
            let status = status.map(|status| status.as_str().to_owned());
            let given =
                [("status", status), ("endpoint", endpoint), ("account", account), ("search", search)];
            let found = pages(api, "/api/deliveries", "deliveries", given, &cut).await?;
            args.form.list(&found, &tables::deliveries(&found))
        }
        DeliveriesCommand::Show { id } => {
            let found = api.get("/api/deliveries", &[("id", id.clone())]).await?;
            let one = &found["deliveries"][0];
            args.form.one(one, &id, || tables::delivery(one))
        }
        DeliveriesCommand::Resend { id, reason } => {
            act(api, "/api/deliveries/resend", &on(&id, reason.reason), &args.form).await
        }
    }
}
