//! One connection: who may, what is prepared, and rows on their way.

use std::fmt::Debug;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use async_trait::async_trait;
use bytes::{BufMut, BytesMut};
use futures::stream::BoxStream;
use futures::{FutureExt, Sink, SinkExt, StreamExt, stream};
use pgwire::api::auth::mechanism::{AuthMechanism, AuthMechanismFactory, AuthState};
use pgwire::api::auth::{
    AuthDriver, AuthOutcome, DefaultServerParameterProvider, LoginInfo, StartupHandler, protocol_negotiation,
    save_startup_parameters_to_metadata,
};
use pgwire::api::cancel::{CancelHandler, DefaultCancelHandler};
use pgwire::api::portal::{Format, Portal};
use pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use pgwire::api::results::{FieldFormat, FieldInfo, QueryResponse, Response, Tag};
use pgwire::api::stmt::QueryParser;
use pgwire::api::store::PortalStore;
use pgwire::api::{
    ClientInfo, ClientPortalStore, ConnectionHandle, ConnectionManager, ErrorHandler, PgWireServerHandlers, Type,
};
use pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use pgwire::messages::data::DataRow;
use pgwire::messages::response::TransactionStatus;
use pgwire::messages::simplequery::Query;
use pgwire::messages::startup::{Authentication, ParameterStatus, PasswordMessageFamily};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use tokio::sync::mpsc;

use crate::answers::{Answers, Shape, Unanswered};
use crate::columns::{Rows, fields, wire_type};
use crate::parameters::texts;
use crate::server::Admit;
use crate::statements::{Statement, VERSION, is_plain, parse, setting};

/// An error with its SQLSTATE (PostgreSQL's documentation, appendix A).
pub fn error(code: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".to_string(), code.to_string(), message.into())))
}

fn unanswered(why: &Unanswered) -> PgWireError {
    let code = match why {
        Unanswered::Refused(code, _) => code,
        Unanswered::Busy(_) => "53300",
        Unanswered::Ended(_) => "57014",
        Unanswered::Failed(_) => "XX000",
    };
    error(code, why.to_string())
}

/// A statement that is prepared.
#[derive(Debug, Clone)]
pub struct Prepared {
    statement: Statement,
    /// Of a question.
    shape: Option<Shape>,
    parameters: Vec<Type>,
}

/// Answers what connections say.
pub struct Speaker {
    answers: Arc<dyn Answers>,
}

/// Bytes of one answer.
const ANSWER_BYTES: usize = 256 << 20;

/// Rows until a client cancels. It is listened for until the first row, and from here on only if it is begun anew with the first poll:
/// sooner it would be this question that is cancelled.
fn until_cancelled(
    rows: BoxStream<'static, PgWireResult<DataRow>>,
    handle: Arc<ConnectionHandle>,
) -> impl futures::Stream<Item = PgWireResult<DataRow>> {
    let mut waiting = Some(rows);
    // A tuple, since what it holds is to be polled and not awaited.
    stream::once(async move { (handle.start_query().await,) }).flat_map(move |(mut cancelled,)| {
        let mut rows = waiting.take().unwrap_or_else(|| stream::empty().boxed());
        stream::poll_fn(move |context| match cancelled.poll_unpin(context) {
            Poll::Ready(Ok(())) => Poll::Ready(Some(Err(PgWireError::QueryCanceled))),
            _ => rows.poll_next_unpin(context),
        })
    })
}

/// How long a client may take no rows: whoever answers waits for it.
const SLOW: Duration = Duration::from_secs(30);

/// Batches that wait for the client.
const WAITING: usize = 2;

impl Speaker {
    /// What a text says. What may take long is looked at elsewhere: this thread is everybody's.
    async fn parse(&self, sql: &str) -> PgWireResult<Vec<Statement>> {
        if is_plain(sql) {
            return parse(sql).map_err(|(code, problem)| error(&code, problem));
        }
        let (answers, sql) = (self.answers.clone(), sql.to_string());
        let parsed = tokio::task::spawn_blocking(move || answers.parse(&sql)).await;
        parsed.map_err(|gone| error("XX000", gone.to_string()))?.map_err(|why| unanswered(&why))
    }

    async fn shape(&self, sql: &str) -> PgWireResult<Shape> {
        let (answers, sql) = (self.answers.clone(), sql.to_string());
        let described = tokio::task::spawn_blocking(move || answers.describe(&sql)).await;
        described.map_err(|gone| error("XX000", gone.to_string()))?.map_err(|why| unanswered(&why))
    }

    /// Asks. Rows come while the client takes them; when it cancels, or does not take them any more, whoever answers is told. `alone` says that
    /// nothing follows in the same message.
    async fn ask<C: ClientInfo>(
        &self,
        client: &C,
        sql: &str,
        parameters: Vec<Option<String>>,
        format: &Format,
        alone: bool,
    ) -> PgWireResult<Response> {
        let (sender, mut batches) = mpsc::channel::<Result<RecordBatch, Unanswered>>(WAITING);
        let (answers, sql) = (self.answers.clone(), sql.to_string());
        tokio::task::spawn_blocking(move || {
            let gone = || "nobody waits for the answer".to_string();
            let here = tokio::runtime::Handle::current();
            let send = |batch| here.block_on(tokio::time::timeout(SLOW, sender.send(Ok(batch))));
            let asked = answers.answer(&sql, &parameters, &mut |batch| match batch {
                Some(batch) => match send(batch) {
                    Ok(sent) => sent.map_err(|_| gone()),
                    Err(_) => Err(format!("the client took no rows for {} s", SLOW.as_secs())),
                },
                None if sender.is_closed() => Err(gone()),
                None => Ok(()),
            });
            if let Err(why) = asked {
                drop(sender.blocking_send(Err(why)));
            }
        });
        let first = match batches.recv().await {
            Some(first) => first.map_err(|why| unanswered(&why))?,
            None => return Err(error("XX000", "an answer without columns")),
        };
        let fields = Arc::new(fields(first.schema_ref(), format));
        let shape = fields.clone();
        let later = stream::poll_fn(move |context| batches.poll_recv(context));
        let mut sent = 0;
        let rows = stream::iter([Ok(first)]).chain(later).flat_map(move |batch| {
            let rows = batch.map_err(|why| unanswered(&why)).and_then(|batch| {
                Rows::new(shape.clone(), &batch).map_err(|problem| error("22003", problem.to_string()))
            });
            match rows {
                Ok(rows) => stream::iter(rows.all().map(Ok)).left_stream(),
                Err(problem) => stream::iter([Err(problem)]).right_stream(),
            }
        });
        let rows = rows.map(move |row: PgWireResult<DataRow>| {
            sent += row.as_ref().map_or(0, |row| row.data.len());
            // The extended protocol holds an answer until its end.
            match row {
                Ok(_) if sent > ANSWER_BYTES => Err(error("54000", "the answer is too large: expected a LIMIT")),
                row => row,
            }
        });
        let rows = match client.session_extensions().get::<Arc<ConnectionHandle>>().filter(|_| alone) {
            Some(handle) => until_cancelled(rows.boxed(), handle.as_ref().clone()).boxed(),
            None => rows.boxed(),
        };
        Ok(Response::Query(QueryResponse::new(fields, rows)))
    }

    async fn respond<C>(
        &self,
        client: &mut C,
        statement: &Statement,
        parameters: Vec<Option<String>>,
        format: &Format,
        alone: bool,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let is_aborted = client.transaction_status() == TransactionStatus::Error;
        if is_aborted && !matches!(statement, Statement::End(_)) {
            return Err(error("25P02", "the transaction is aborted: expected ROLLBACK"));
        }
        match statement {
            Statement::Question(sql) => self.ask(client, sql, parameters, format, alone).await,
            Statement::Done(tag) => Ok(Response::Execution(Tag::new(tag))),
            Statement::Back => Ok(Response::Execution(Tag::new("ROLLBACK"))),
            Statement::Begin => Ok(Response::TransactionStart(Tag::new("BEGIN"))),
            Statement::End(_) if is_aborted => Ok(Response::TransactionEnd(Tag::new("ROLLBACK"))),
            Statement::End(tag) => Ok(Response::TransactionEnd(Tag::new(tag))),
            Statement::Set(name, value) => {
                client.metadata_mut().insert(name.clone(), value.clone());
                if let Some(reported) = REPORTED.iter().find(|reported| reported.eq_ignore_ascii_case(name)) {
                    let status = ParameterStatus::new(reported.to_string(), value.clone());
                    client.send(PgWireBackendMessage::ParameterStatus(status)).await?;
                }
                Ok(Response::Execution(Tag::new("SET")))
            }
            Statement::Show(name) => {
                let value = client.metadata().get(name).cloned().unwrap_or_else(|| setting(name).to_string());
                let mut out = BytesMut::new();
                out.put_i32(value.len() as i32);
                out.put_slice(value.as_bytes());
                let rows = stream::iter([Ok(DataRow::new(out, 1))]);
                let mut response = QueryResponse::new(Arc::new(vec![shown(name)]), rows);
                response.set_command_tag("SHOW");
                Ok(Response::Query(response))
            }
        }
    }
}

/// An answer whose rows are all here.
async fn whole(response: Response) -> Response {
    let Response::Query(mut answer) = response else { return response };
    let fields = answer.row_schema();
    let rows: Vec<PgWireResult<DataRow>> = answer.data_rows.by_ref().collect().await;
    Response::Query(QueryResponse::new(fields, stream::iter(rows)))
}

/// Settings whose changes clients are told of (PostgreSQL's protocol, "asynchronous operations").
const REPORTED: [&str; 4] = ["application_name", "DateStyle", "TimeZone", "client_encoding"];

fn shown(name: &str) -> FieldInfo {
    FieldInfo::new(name.to_string(), None, None, Type::TEXT, FieldFormat::Text)
}

#[async_trait]
impl SimpleQueryHandler for Speaker {
    async fn on_query<C>(&self, client: &mut C, query: Query) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        // A transaction that goes on from a savepoint is no aborted one any more, also for what follows in the same message.
        let goes_back = || parse(&query.query).is_ok_and(|statements| statements.first() == Some(&Statement::Back));
        if client.transaction_status() == TransactionStatus::Error && is_plain(&query.query) && goes_back() {
            client.set_transaction_status(TransactionStatus::Transaction);
        }
        self._on_query(client, query).await
    }

    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let statements = self.parse(query).await?;
        if statements.is_empty() {
            return Ok(vec![Response::EmptyQuery]);
        }
        let (mut responses, alone) = (Vec::new(), statements.len() == 1);
        for statement in statements {
            let response = self.respond(client, &statement, vec![], &Format::UnifiedText, alone).await?;
            // Of several, each is answered before the next is asked: two that wait for each other's worker would wait for ever.
            responses.push(if alone { response } else { whole(response).await });
        }
        Ok(responses)
    }
}

#[async_trait]
impl QueryParser for Speaker {
    type Statement = Prepared;

    async fn parse_sql<C>(&self, _client: &C, sql: &str, types: &[Option<Type>]) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let mut statements = self.parse(sql).await?;
        let statement = match statements.len() {
            0 => return Ok(None),
            1 => statements.remove(0),
            _ => return Err(error("42601", "expected one statement to prepare")),
        };
        let shape = match &statement {
            Statement::Question(sql) => Some(self.shape(sql).await?),
            _ => None,
        };
        let inferred: &[DataType] = shape.as_ref().map_or(&[], |shape| &shape.parameters);
        let parameters = inferred.iter().enumerate().map(|(index, inferred)| {
            let given = types.get(index).cloned().flatten().filter(|given| *given != Type::UNKNOWN);
            given.unwrap_or_else(|| wire_type(inferred).0)
        });
        Ok(Some(Prepared { parameters: parameters.collect(), shape, statement }))
    }

    fn get_parameter_types(&self, prepared: &Prepared) -> PgWireResult<Vec<Type>> {
        Ok(prepared.parameters.clone())
    }

    fn get_result_schema(&self, prepared: &Prepared, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        Ok(match (&prepared.shape, &prepared.statement) {
            (Some(shape), _) => fields(&shape.columns, format.unwrap_or(&Format::UnifiedText)),
            (None, Statement::Show(name)) => vec![shown(name)],
            _ => vec![],
        })
    }
}

#[async_trait]
impl ExtendedQueryHandler for Speaker {
    type Statement = Prepared;
    type QueryParser = Speaker;

    fn query_parser(&self) -> Arc<Speaker> {
        Arc::new(Speaker { answers: self.answers.clone() })
    }

    async fn do_query<C>(&self, client: &mut C, portal: &Portal<Prepared>, _max_rows: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let prepared = &portal.statement.statement;
        let parameters = texts(portal, &prepared.parameters)?;
        self.respond(client, &prepared.statement, parameters, &portal.result_column_format, true).await
    }
}

/// Whom to let in: everybody, or those whose password somebody knows.
struct Door(Option<Admit>);

struct Passing(Option<Admit>);

impl AuthMechanismFactory<()> for Door {
    fn create(&self) -> Box<dyn AuthMechanism<()>> {
        Box::new(Passing(self.0.clone()))
    }
}

#[async_trait]
impl AuthMechanism<()> for Passing {
    async fn begin(&mut self, _client: &(dyn ClientInfo + Send + Sync)) -> PgWireResult<AuthState<()>> {
        Ok(match self.0 {
            None => AuthState::Ok { final_message: None, identity: None },
            Some(_) => AuthState::InProgress(Authentication::CleartextPassword),
        })
    }

    async fn next(
        &mut self,
        client: &(dyn ClientInfo + Send + Sync),
        message: PasswordMessageFamily,
    ) -> PgWireResult<AuthState<()>> {
        let message = message.into_password()?;
        if self.0.as_ref().is_none_or(|admit| admit(&message.password)) {
            return Ok(AuthState::Ok { final_message: None, identity: None });
        }
        let login = LoginInfo::from_client_info(client);
        Err(PgWireError::InvalidPassword(login.user().unwrap_or_default().to_string()))
    }
}

struct Startup {
    /// A password is not asked for in the clear where TLS is to be had.
    needs_tls: bool,
    door: Door,
    driver: AuthDriver<DefaultServerParameterProvider>,
}

#[async_trait]
impl StartupHandler for Startup {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let outcome = match message {
            PgWireFrontendMessage::Startup(_) if self.needs_tls && !client.is_secure() => {
                let refused = ErrorInfo::new("FATAL".to_string(), "28000".to_string(), "expected TLS".to_string());
                return Err(PgWireError::UserError(Box::new(refused)));
            }
            PgWireFrontendMessage::Startup(startup) => {
                protocol_negotiation(client, &startup).await?;
                save_startup_parameters_to_metadata(client, &startup);
                self.driver.begin_authentication(client, self.door.create()).await?
            }
            PgWireFrontendMessage::PasswordMessageFamily(message) => {
                self.driver.advance_authentication(client, message).await?
            }
            _ => return Ok(()),
        };
        match outcome {
            AuthOutcome::InProgress => Ok(()),
            AuthOutcome::Authenticated { final_message, .. } => {
                self.driver.complete_authentication(client, final_message).await
            }
        }
    }
}

/// What a connection is handled with.
pub struct Handlers {
    speaker: Arc<Speaker>,
    admit: Option<Admit>,
    needs_tls: bool,
    connections: Arc<ConnectionManager>,
}

impl Handlers {
    /// For all connections of a server.
    pub fn new(answers: Arc<dyn Answers>, admit: Option<Admit>, needs_tls: bool) -> Handlers {
        Handlers {
            speaker: Arc::new(Speaker { answers }),
            admit,
            needs_tls,
            connections: Arc::new(ConnectionManager::new()),
        }
    }
}

/// Errors are for the client.
struct Quiet;

impl ErrorHandler for Quiet {}

impl PgWireServerHandlers for Handlers {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        self.speaker.clone()
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        self.speaker.clone()
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        let mut parameters = DefaultServerParameterProvider::default();
        parameters.server_version = format!("{VERSION} (tidewatch)");
        parameters.is_superuser = false;
        parameters.default_transaction_read_only = true;
        parameters.date_style = "ISO, MDY".to_string();
        parameters.time_zone = "UTC".to_string();
        let driver = AuthDriver::new(parameters).with_connection_manager(self.connections.clone());
        Arc::new(Startup { needs_tls: self.needs_tls, door: Door(self.admit.clone()), driver })
    }

    fn error_handler(&self) -> Arc<impl ErrorHandler> {
        Arc::new(Quiet)
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        Arc::new(DefaultCancelHandler::new(self.connections.clone()))
    }
}
