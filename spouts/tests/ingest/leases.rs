//! What a holder does with its lease.

use crate::on_both;

on_both! {
    a_paused_queue_is_left_and_gone_back_to(600),
    a_lease_that_cannot_be_renewed_is_given_up_and_nothing_of_it_is_settled(2_000),
    a_stopped_spout_waits_for_what_is_in_work_and_releases(10_000),
    many_messages_share_the_slots_between_the_queues(10_000),
    queues_are_looked_for_still_after_many_leases_ended_at_once(10_000),
    empty_queues_are_given_up_for_those_that_wait(60_000),
    a_spout_whose_lease_has_its_prefetch_in_work_says_that_it_is_full(10_000),
    bolts_read_the_messages_own_id_at_each_delivery(10_000),
}

mod scenarios {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::sync::{Arc, Mutex};

    use std::time::Duration;

    use async_trait::async_trait;
    use galerna_broker::rabbitmq::{RabbitMqBroker, RabbitMqOptions, Timeouts};
    use galerna_engine::{Engine, EngineOptions, Running, SpoutState};
    use galerna_lease::{GrantedLease, LeaseError, Leases, NextRequest, Release, Renewed};
    use galerna_model::{Incoming, Message, QueueName};
    use galerna_spouts::LeasedOptions;
    use galerna_test_servers::RabbitMq;
    use galerna_topology::{Anchor, Bolt, Emitter, Fault, TopologyBuilder};

    use crate::world::{DEADLINE, World, envelopes, eventually, quick, retry};

    /// Keeps what it gets until it is told to let go.
    #[derive(Clone, Default)]
    struct Keeper {
        kept: Arc<Mutex<Vec<Anchor>>>,
        pass: Arc<AtomicBool>,
    }

    impl Keeper {
        fn kept(&self) -> usize {
            self.kept.lock().unwrap().len()
        }

        fn let_go(&self) {
            self.pass.store(true, Ordering::SeqCst);
            self.kept.lock().unwrap().drain(..).for_each(Anchor::ack);
        }

        /// Fails what it kept and lets pass what comes from now on.
        fn fail(&self) {
            self.pass.store(true, Ordering::SeqCst);
            self.kept.lock().unwrap().drain(..).for_each(|anchor| anchor.fail(Fault::transient("not yet")));
        }
    }

    impl Bolt for Keeper {
        type Input = Incoming;
        type Outputs = ();

        fn execute(&mut self, _: Incoming, out: &mut Emitter<()>) -> Result<(), Fault> {
            if !self.pass.load(Ordering::SeqCst) {
                self.kept.lock().unwrap().push(out.keep());
            }
            Ok(())
        }
    }

    async fn run(world: &World, leases: Arc<dyn Leases>, keeper: &Keeper) -> Running {
        run_with(world, leases, keeper, quick()).await
    }

    async fn run_with(
        world: &World,
        leases: Arc<dyn Leases>,
        keeper: &Keeper,
        options: LeasedOptions,
    ) -> Running {
        let mut topology = TopologyBuilder::new("keep");
        let messages = topology.spout("queues", world.spout(leases, options)).outputs();
        let keeper = keeper.clone();
        topology.bolt("keep", move || keeper.clone()).shuffle(&messages);
        Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap()
    }

    pub(super) async fn a_paused_queue_is_left_and_gone_back_to(world: World) {
        let queue = world.queue("D1").await;
        let keeper = Keeper::default();
        world.publish(&queue, envelopes("D1", 5, 1)).await;
        let leases = Arc::new(Flaky::over(&world));
        let running = run(&world, leases.clone(), &keeper).await;
        eventually("five are in work", || async { keeper.kept() == 5 }).await;

        world.dispatcher.pause(&queue, Some("maintenance".to_owned()), "test").await.unwrap();
        // The holder learns it with its next renewal, consumes nothing more, finishes what it has and gives the queue back.
        eventually("the holder has learnt it", || async { leases.revoked.load(Ordering::SeqCst) }).await;
        world.publish(&queue, envelopes("D1", 3, 1)).await;
        eventually("it was told twice", || async { leases.renewals.load(Ordering::SeqCst) >= 4 }).await;
        assert_eq!(keeper.kept(), 5);
        keeper.let_go();
        eventually("the lease is given back", || async {
            world.tally.revoked() == 1 && world.tally.held() == 0
        })
        .await;
        assert_eq!(world.tally.acked(), 5);
        let leases = world.tally.leases();
        assert_eq!(world.dispatcher.queue(&queue).await.unwrap().state, "pause");

        world.dispatcher.unpause(&queue, "test").await.unwrap();
        eventually("the rest is consumed", || async { world.tally.acked() == 8 }).await;
        assert!(world.tally.leases() > leases);
        assert!(running.drain(DEADLINE).await.drained);
        assert!(world.is_empty(&queue).await);
    }

    pub(super) async fn a_spout_whose_lease_has_its_prefetch_in_work_says_that_it_is_full(world: World) {
        let queue = world.queue("D1").await;
        let prefetch = usize::from(quick().prefetch);
        world.publish(&queue, envelopes("D1", prefetch + 100, 1)).await;
        let keeper = Keeper::default();
        let running = run(&world, world.leases(), &keeper).await;
        eventually("the prefetch is in work", || async { keeper.kept() == prefetch }).await;
        let state = || running.metrics().component("queues").unwrap().states[0].clone();
        // The engine would have room for more, and so would the other slots.
        eventually("it is full", || async { state() == SpoutState::PendingFull }).await;
        assert_eq!(keeper.kept(), prefetch);

        keeper.let_go();
        eventually("all is acked", || async { world.tally.acked() == prefetch as u64 + 100 }).await;
        eventually("there is no more", || async { state() == SpoutState::NoData }).await;
        assert!(running.drain(DEADLINE).await.drained);
    }

    /// Notes what it gets by which id, and fails each message the first time.
    #[derive(Clone, Default)]
    struct Noting(Arc<Mutex<Vec<Noted>>>);

    /// A message, which delivery of it, and the id that the bolt read.
    type Noted = (Message, u32, Option<Arc<str>>);

    impl Bolt for Noting {
        type Input = Incoming;
        type Outputs = ();

        fn execute(&mut self, incoming: Incoming, out: &mut Emitter<()>) -> Result<(), Fault> {
            let Incoming { message, deliveries, .. } = incoming;
            self.0.lock().unwrap().push((message, deliveries, out.stable_id()));
            if deliveries == 1 { Err(Fault::transient("the first time")) } else { Ok(()) }
        }
    }

    pub(super) async fn bolts_read_the_messages_own_id_at_each_delivery(world: World) {
        let queue = world.queue("D1").await;
        let mut messages = envelopes("D1", 3, 1);
        messages[2].id = String::new();
        world.publish(&queue, messages).await;
        let mut topology = TopologyBuilder::new("ids");
        let stream = topology.spout("queues", world.spout(world.leases(), quick())).outputs();
        let noting = Noting::default();
        topology.bolt("note", noting.clone()).shuffle(&stream);
        let running = Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap();
        eventually("all is acked", || async { world.tally.acked() == 3 }).await;
        assert!(running.drain(DEADLINE).await.drained);
        let noted = noting.0.lock().unwrap().clone();
        assert_eq!(noted.iter().filter(|(_, deliveries, _)| *deliveries > 1).count(), 3, "each came again");
        for (message, deliveries, id) in noted {
            let expected = (!message.id.is_empty()).then_some(&*message.id);
            assert_eq!(id.as_deref(), expected, "delivery {deliveries}");
        }
    }

    /// A dispatcher that cannot be reached while `unavailable`.
    struct Flaky {
        inner: Arc<dyn Leases>,
        unavailable: AtomicBool,
        renewals: AtomicU32,
        revoked: AtomicBool,
    }

    impl Flaky {
        fn over(world: &World) -> Self {
            let (unavailable, revoked) = (AtomicBool::new(false), AtomicBool::new(false));
            Self { inner: world.leases(), unavailable, renewals: AtomicU32::new(0), revoked }
        }
    }

    #[async_trait]
    impl Leases for Flaky {
        async fn next(&self, request: NextRequest) -> Result<Vec<GrantedLease>, LeaseError> {
            match self.unavailable.load(Ordering::SeqCst) {
                true => Err(LeaseError::Unavailable("cut off".to_owned())),
                false => self.inner.next(request).await,
            }
        }

        async fn renew(&self, queue: &QueueName, epoch: u64) -> Result<Renewed, LeaseError> {
            match self.unavailable.load(Ordering::SeqCst) {
                true => Err(LeaseError::Unavailable("cut off".to_owned())),
                false => {
                    let renewed = self.inner.renew(queue, epoch).await?;
                    self.renewals.fetch_add(1, Ordering::SeqCst);
                    self.revoked.fetch_or(renewed.revoked, Ordering::SeqCst);
                    Ok(renewed)
                }
            }
        }

        async fn release(&self, release: &Release) -> Result<(), LeaseError> {
            match self.unavailable.load(Ordering::SeqCst) {
                true => Err(LeaseError::Unavailable("cut off".to_owned())),
                false => self.inner.release(release).await,
            }
        }
    }

    pub(super) async fn a_lease_that_cannot_be_renewed_is_given_up_and_nothing_of_it_is_settled(
        world: World,
    ) {
        let queue = world.queue("D1").await;
        world.publish(&queue, envelopes("D1", 5, 1)).await;
        let keeper = Keeper::default();
        let flaky = Arc::new(Flaky::over(&world));
        let running = run(&world, flaky.clone(), &keeper).await;
        eventually("five are in work", || async { keeper.kept() == 5 }).await;
        let epoch = world.dispatcher.queue(&queue).await.unwrap().epoch;

        flaky.unavailable.store(true, Ordering::SeqCst);
        eventually("the holder gives up", || async { world.tally.lost() >= 1 && world.tally.held() == 0 })
            .await;
        // Somebody else gets the queue and all of its messages.
        let other = World { tally: Arc::default(), ..world };
        let second = Keeper::default();
        let rescuer = run(&other, other.leases(), &second).await;
        eventually("the other has them", || async { second.kept() == 5 }).await;
        assert!(other.dispatcher.queue(&queue).await.unwrap().epoch > epoch);

        // The first one finishes late: nothing of it counts, and its release harms nobody.
        keeper.let_go();
        flaky.unavailable.store(false, Ordering::SeqCst);
        let ready_to_end = running.drain(DEADLINE).await;
        assert!(ready_to_end.drained);
        assert_eq!(second.kept(), 5);
        assert_eq!(other.dispatcher.queue(&queue).await.unwrap().state, "worker");
        second.let_go();
        eventually("the other acks them", || async { other.tally.acked() == 5 }).await;
        assert!(rescuer.drain(DEADLINE).await.drained);
        assert!(other.is_empty(&queue).await);
    }

    pub(super) async fn a_stopped_spout_waits_for_what_is_in_work_and_releases(world: World) {
        let queue = world.queue("D1").await;
        world.publish(&queue, envelopes("D1", 30, 1)).await;
        let keeper = Keeper::default();
        let running = run(&world, world.leases(), &keeper).await;
        eventually("some are in work", || async { keeper.kept() >= 10 }).await;
        let drained = tokio::spawn(running.drain(DEADLINE));
        assert!(!drained.is_finished());
        let at_stop = keeper.clone();
        eventually("the spout has stopped", || async {
            at_stop.let_go();
            drained.is_finished()
        })
        .await;
        assert!(drained.await.unwrap().drained);
        assert_eq!(world.tally.held(), 0);
        assert_eq!(world.tally.acked() + world.tally.given_back(), 30);
        let view = world.dispatcher.queue(&queue).await.unwrap();
        assert_ne!(view.state, "worker", "the lease was released");
        let depth = world.broker.depth(&queue).await.unwrap();
        assert_eq!(depth.unacked, 0);
        assert_eq!(depth.ready, 30 - world.tally.acked(), "what was not acked is there again");
    }

    pub(super) async fn many_messages_share_the_slots_between_the_queues(world: World) {
        let keeper = Keeper::default();
        keeper.let_go();
        let big = world.queue("big").await;
        world.publish(&big, envelopes("big", 2_000, 1)).await;
        let mut small = Vec::new();
        for n in 0..12 {
            let name = format!("small{n}");
            let queue = world.queue(&name).await;
            world.publish(&queue, envelopes(&name, 5, 1)).await;
            small.push(queue);
        }
        let running = run(&world, world.leases(), &keeper).await;
        eventually("all is acked", || async { world.tally.acked() == 2_000 + 12 * 5 }).await;
        assert!(running.drain(DEADLINE).await.drained);
        for queue in small.iter().chain([&big]) {
            assert!(world.is_empty(queue).await, "{queue}");
        }
        assert!(world.tally.leases() >= 13);
    }

    /// A dispatcher that takes its time for a release that comes by itself.
    struct SlowToRelease(Arc<dyn Leases>);

    #[async_trait]
    impl Leases for SlowToRelease {
        async fn next(&self, request: NextRequest) -> Result<Vec<GrantedLease>, LeaseError> {
            self.0.next(request).await
        }

        async fn renew(&self, queue: &QueueName, epoch: u64) -> Result<Renewed, LeaseError> {
            self.0.renew(queue, epoch).await
        }

        async fn release(&self, release: &Release) -> Result<(), LeaseError> {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.0.release(release).await
        }
    }

    pub(super) async fn queues_are_looked_for_still_after_many_leases_ended_at_once(world: World) {
        const QUEUES: u64 = 60;
        let mut queues = Vec::new();
        for n in 0..QUEUES {
            queues.push((world.queue(&format!("D{n}")).await, format!("D{n}")));
        }
        let keeper = Keeper::default();
        let options = LeasedOptions { leases: 200, linger: Duration::ZERO, ..quick() };
        let leases = Arc::new(SlowToRelease(world.leases()));
        let running = run_with(&world, leases, &keeper, options).await;
        for round in 1..=3 {
            keeper.pass.store(false, Ordering::SeqCst);
            for (queue, name) in &queues {
                world.publish(queue, envelopes(name, 1, 1)).await;
            }
            eventually("each queue is leased and has its message in work", || async {
                keeper.kept() as u64 == QUEUES
            })
            .await;
            assert!(world.tally.held() >= QUEUES);
            keeper.let_go();
            eventually("all is acked", || async { world.tally.acked() == round * QUEUES }).await;
            eventually("the leases are given back", || async { world.tally.held() < QUEUES }).await;
        }
        assert!(running.drain(DEADLINE).await.drained);
    }

    pub(super) async fn empty_queues_are_given_up_for_those_that_wait(world: World) {
        const LEASES: u64 = 20;
        const EMPTY: u64 = 3;
        let keeper = Keeper::default();
        keeper.let_go();
        let options =
            LeasedOptions { leases: LEASES as usize, linger: Duration::from_secs(3_600), ..quick() };
        let running = run_with(&world, world.leases(), &keeper, options).await;
        for n in 0..EMPTY {
            let queue = world.queue(&format!("EMPTY{n}")).await;
            world.publish(&queue, envelopes(&format!("EMPTY{n}"), 1, 1)).await;
        }
        eventually("all is acked", || async { world.tally.acked() == EMPTY }).await;
        keeper.pass.store(false, Ordering::SeqCst);
        for n in 0..LEASES {
            let queue = world.queue(&format!("D{n}")).await;
            world.publish(&queue, envelopes(&format!("D{n}"), 1, 1)).await;
        }
        eventually("no place is kept for an empty queue", || async { keeper.kept() as u64 == LEASES }).await;
        keeper.let_go();
        eventually("all is acked", || async { world.tally.acked() == EMPTY + LEASES }).await;
        assert!(running.drain(DEADLINE).await.drained);
    }

    /// Five messages in work under one lease, with a broker that no longer answers.
    async fn five_in_work_and_a_frozen_broker(
        server: &RabbitMq,
        lease: Duration,
    ) -> (World, Keeper, Arc<Flaky>, Running) {
        let options = RabbitMqOptions {
            retry: retry(),
            // Settling a failed message waits for the confirm of its copy.
            timeouts: Timeouts { confirm: 10 * DEADLINE, ..Timeouts::default() },
            ..RabbitMqOptions::new(server.amqp_uri())
        };
        let broker = Arc::new(RabbitMqBroker::connect(options).await.expect("RabbitMQ"));
        let world = World::of(broker, galerna_storage::sqlite::in_memory().expect("a store"), lease).await;
        let queue = world.queue("D1").await;
        world.publish(&queue, envelopes("D1", 5, 1)).await;
        let keeper = Keeper::default();
        let leases = Arc::new(Flaky::over(&world));
        let running = run(&world, leases.clone(), &keeper).await;
        eventually("five are in work", || async { keeper.kept() == 5 }).await;
        server.freeze().await;
        (world, keeper, leases, running)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_lease_is_renewed_while_settling_takes_longer_than_it_lasts() {
        let server = RabbitMq::start().await;
        let (world, keeper, leases, running) =
            five_in_work_and_a_frozen_broker(&server, Duration::from_secs(4)).await;
        let before = leases.renewals.load(Ordering::SeqCst);
        keeper.fail();
        eventually("it was renewed for longer than it lasts", || async {
            leases.renewals.load(Ordering::SeqCst) >= before + 5
        })
        .await;
        assert_eq!(world.tally.lost(), 0);
        server.thaw().await;
        eventually("all came again", || async { world.tally.acked() == 5 }).await;
        assert_eq!((world.tally.lost(), world.tally.retried()), (0, 5));
        assert!(running.drain(DEADLINE).await.drained);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn settling_ends_with_the_lease() {
        let server = RabbitMq::start().await;
        let (world, keeper, leases, running) =
            five_in_work_and_a_frozen_broker(&server, Duration::from_secs(2)).await;
        leases.unavailable.store(true, Ordering::SeqCst);
        keeper.fail();
        eventually("the lease is given up", || async { world.tally.lost() == 1 && world.tally.held() == 0 })
            .await;
        eventually("all outcomes are too late", || async { world.tally.too_late() == 5 }).await;
        assert_eq!(world.tally.retried(), 0);
        server.thaw().await;
        leases.unavailable.store(false, Ordering::SeqCst);
        eventually("all came again", || async { world.tally.acked() >= 5 }).await;
        assert!(running.drain(DEADLINE).await.drained);
    }
}
