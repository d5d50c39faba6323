use super::*;

const SECOND: u64 = 1_000_000_000;

fn both() -> Router {
    let router = Router::default();
    for (name, side) in [
        ("pool:general", Side::Python),
        ("native", Side::Native),
        ("pool:optimizer", Side::Python),
    ] {
        router.add(name, side, &Options::default()).unwrap();
    }
    router
}

fn fragile() -> Options {
    let breaker = BreakerSettings {
        minimum: 2,
        window: Window::Calls(4),
        probes: 1,
        ..BreakerSettings::default()
    };
    Options {
        breaker: Some(breaker),
        ..Options::default()
    }
}

fn unable(slots: &[usize]) -> Slots {
    slots
        .iter()
        .fold(Slots::default(), |set, slot| set.with(*slot))
}

fn end(router: &Router, decision: &Decision, outcome: Outcome, now: u64) -> Option<Event> {
    router.record(
        &decision.ticket,
        outcome,
        Duration::from_millis(1),
        None,
        now,
    )
}

#[test]
fn an_override_is_obeyed_and_the_order_is_that_of_the_strategy() {
    use Reason::{Preferred, Tried, Unable, Wanted};
    type Row<'a> = (
        Option<&'a str>,
        &'a [usize],
        &'a [usize],
        Strategy,
        Result<(&'a str, Reason), RouteError>,
    );
    let (native, python) = (Strategy::PreferNative, Strategy::PreferPython);
    let unknown = RouteError::UnknownRoute {
        wanted: "rust".into(),
    };
    let rows: [Row<'_>; 12] = [
        (None, &[], &[], native, Ok(("native", Preferred))),
        (None, &[1], &[], native, Ok(("pool:general", Unable))),
        (None, &[], &[1], native, Ok(("pool:general", Tried))),
        (None, &[1], &[0], native, Ok(("pool:optimizer", Tried))),
        (None, &[], &[], python, Ok(("pool:general", Preferred))),
        (None, &[0, 2], &[], python, Ok(("native", Unable))),
        (Some("native"), &[], &[], native, Ok(("native", Wanted))),
        (Some("native"), &[1], &[], native, Err(RouteError::Unable)),
        (
            Some("python"),
            &[],
            &[],
            native,
            Ok(("pool:general", Wanted)),
        ),
        (
            Some("pool:optimizer"),
            &[],
            &[],
            native,
            Ok(("pool:optimizer", Wanted)),
        ),
        (Some("rust"), &[], &[], native, Err(unknown)),
        (None, &[0, 1, 2], &[], native, Err(RouteError::NoTarget)),
    ];
    let router = both();
    for (wanted, cannot, tried, strategy, expected) in rows {
        let wish = Wish {
            wanted,
            unable: unable(cannot),
            tried: unable(tried),
            strategy: Some(strategy),
            ..Wish::default()
        };
        let decided = router.decide(&wish, 0);
        let found = decided
            .as_ref()
            .map(|found| (found.ticket.target().name(), found.reason));
        assert_eq!(found.map_err(Clone::clone), expected, "{wish:?}");
    }
    let alone = Router::default();
    alone
        .add("native", Side::Native, &Options::default())
        .unwrap();
    let wish = Wish {
        wanted: Some("python"),
        ..Wish::default()
    };
    assert_eq!(alone.decide(&wish, 0).unwrap_err(), RouteError::NoTarget);
}

#[test]
fn what_fails_is_left_alone_until_a_probe_brings_it_back_and_each_change_is_told() {
    let router = Router::default();
    router.add("native", Side::Native, &fragile()).unwrap();
    router
        .add("pool:general", Side::Python, &Options::default())
        .unwrap();
    let ask = |now| router.decide(&Wish::default(), now).unwrap();
    let first = ask(0);
    let second = ask(0);
    assert!(end(&router, &first, Outcome::Failed, 0).is_none());
    let event = end(&router, &second, Outcome::Failed, 0).unwrap();
    assert_eq!(
        (event.target.name(), event.change.to),
        ("native", State::Open)
    );
    let instead = ask(SECOND);
    assert_eq!(
        (instead.ticket.target().name(), instead.reason),
        ("pool:general", Reason::BreakerOpen)
    );
    let wanted = Wish {
        wanted: Some("native"),
        ..Wish::default()
    };
    let after = Some(Duration::from_secs(4));
    assert_eq!(
        router.decide(&wanted, SECOND).unwrap_err(),
        RouteError::Closed { full: false, after }
    );
    let probe = ask(5 * SECOND);
    assert_eq!(probe.event.as_ref().unwrap().change.to, State::HalfOpen);
    assert_eq!(ask(5 * SECOND).ticket.target().name(), "pool:general");
    let back = end(&router, &probe, Outcome::Served, 5 * SECOND).unwrap();
    assert_eq!(back.change.to, State::Closed);
    assert_eq!(ask(5 * SECOND).ticket.target().name(), "native");
}

#[test]
fn mistakes_of_others_and_callers_who_leave_never_open_a_breaker() {
    let router = Router::default();
    router.add("native", Side::Native, &fragile()).unwrap();
    for _ in 0..50 {
        for outcome in [Outcome::Refused, Outcome::Cancelled] {
            let decision = router.decide(&Wish::default(), 0).unwrap();
            assert!(end(&router, &decision, outcome, 0).is_none());
        }
    }
    let counts = router.target(0).unwrap().counts();
    assert_eq!(
        (counts.refused, counts.cancelled, counts.in_flight),
        (50, 50, 0)
    );
    assert!(
        router
            .target(0)
            .unwrap()
            .durations()
            .iter()
            .all(|histogram| histogram.count() == 0)
    );
}

#[test]
fn a_target_takes_no_more_than_its_limit_at_once() {
    let router = Router::default();
    let options = Options {
        limit: Some(2),
        ..Options::default()
    };
    router.add("native", Side::Native, &options).unwrap();
    let ask = || router.decide(&Wish::default(), 0);
    let (first, _second) = (ask().unwrap(), ask().unwrap());
    assert_eq!(
        ask().unwrap_err(),
        RouteError::Closed {
            full: true,
            after: None
        }
    );
    end(&router, &first, Outcome::Cancelled, 0);
    assert!(ask().is_ok());
    router
        .add("pool:general", Side::Python, &Options::default())
        .unwrap();
    assert_eq!(ask().unwrap().reason, Reason::Full);
}

#[test]
fn the_faster_of_two_is_called_and_a_new_one_is_tried() {
    let router = Router::new(Strategy::Fastest);
    for name in ["slow", "fast", "open"] {
        let options = if name == "open" {
            fragile()
        } else {
            Options::default()
        };
        router.add(name, Side::Python, &options).unwrap();
    }
    router.target(2).unwrap().breaker().unwrap().force(true);
    for (slot, millis) in [(0, 900), (1, 10)] {
        let wish = Wish {
            wanted: Some(["slow", "fast"][slot]),
            ..Wish::default()
        };
        let decision = router.decide(&wish, 0).unwrap();
        router.record(
            &decision.ticket,
            Outcome::Served,
            Duration::from_millis(millis),
            None,
            0,
        );
    }
    for chance in 0..100 {
        let decision = router
            .decide(
                &Wish {
                    chance,
                    ..Wish::default()
                },
                0,
            )
            .unwrap();
        assert_eq!(
            (decision.ticket.target().name(), decision.reason),
            ("fast", Reason::Fastest)
        );
        end(&router, &decision, Outcome::Cancelled, 0);
    }
    router
        .add("new", Side::Python, &Options::default())
        .unwrap();
    let called = (0..100).filter(|chance| {
        let decision = router
            .decide(
                &Wish {
                    chance: *chance,
                    ..Wish::default()
                },
                0,
            )
            .unwrap();
        let is_new = decision.ticket.target().name() == "new";
        end(&router, &decision, Outcome::Cancelled, 0);
        is_new
    });
    assert!((50..90).contains(&called.count())); // in two of three pairs it is one of the two
}

#[test]
fn weights_share_out_the_calls() {
    let router = Router::new(Strategy::Weighted);
    for (name, weight) in [("a", 3.0), ("b", 1.0), ("none", 0.0)] {
        router
            .add(
                name,
                Side::Python,
                &Options {
                    weight,
                    ..Options::default()
                },
            )
            .unwrap();
    }
    for chance in 0..4_000 {
        let decision = router
            .decide(
                &Wish {
                    chance,
                    ..Wish::default()
                },
                0,
            )
            .unwrap();
        assert_eq!(decision.reason, Reason::Weighted);
        end(&router, &decision, Outcome::Served, 0);
    }
    let served = |slot| router.target(slot).unwrap().counts().served;
    assert!((2_850..3_150).contains(&served(0)), "{}", served(0));
    assert_eq!((served(0) + served(1), served(2)), (4_000, 0));
    let wish = Wish {
        unable: unable(&[0, 1]),
        ..Wish::default()
    };
    assert_eq!(
        router.decide(&wish, 0).unwrap().ticket.target().name(),
        "none"
    );
}

#[test]
fn targets_come_and_go_while_calls_are_under_way() {
    let router = both();
    let decision = router
        .decide(
            &Wish {
                wanted: Some("pool:optimizer"),
                ..Wish::default()
            },
            0,
        )
        .unwrap();
    assert_eq!(
        router.add("native", Side::Native, &Options::default()),
        Err(AddError::Taken)
    );
    assert_eq!(
        router.add("python", Side::Python, &Options::default()),
        Err(AddError::Taken)
    );
    let removed = router.remove(2).unwrap();
    end(&router, &decision, Outcome::Served, 0);
    assert_eq!(removed.counts().served, 1);
    assert!(router.target(2).is_none() && router.remove(2).is_none());
    assert_eq!(
        router.add("pool:optimizer", Side::Python, &Options::default()),
        Ok(2)
    );
    router.remove(0);
    let names: Vec<_> = router
        .all()
        .into_iter()
        .map(|(slot, target)| (slot, target.name().to_owned()))
        .collect();
    assert_eq!(
        names,
        [(1, "native".to_owned()), (2, "pool:optimizer".to_owned())]
    );
    for number in router.all().len()..Slots::MOST {
        router
            .add(&format!("{number}"), Side::Python, &Options::default())
            .unwrap();
    }
    assert_eq!(
        router.add("one more", Side::Python, &Options::default()),
        Err(AddError::TooMany)
    );
}

#[test]
fn one_that_comes_into_the_slot_of_another_is_the_last_of_its_side_and_has_its_own_number() {
    let router = both();
    let general = router.remove(0).unwrap();
    assert_eq!(
        router.add("pool:late", Side::Python, &Options::default()),
        Ok(0)
    );
    let wish = Wish {
        wanted: Some("python"),
        ..Wish::default()
    };
    let decision = router.decide(&wish, 0).unwrap();
    assert_eq!(decision.ticket.target().name(), "pool:optimizer");
    let numbers: Vec<_> = router
        .all()
        .iter()
        .map(|(_, target)| target.number())
        .collect();
    assert_eq!((general.number(), numbers), (0, vec![1, 2, 3]));
}

#[test]
fn what_an_operation_needs_and_a_target_lacks_keeps_them_apart() {
    const MODULE: u64 = 1;
    const TOOLS: u64 = 4;
    let router = Router::default();
    for (name, side, lacks) in [
        ("native", Side::Native, MODULE),
        ("pool:general", Side::Python, TOOLS),
    ] {
        let options = Options {
            lacks,
            ..Options::default()
        };
        router.add(name, side, &options).unwrap();
    }
    for (needs, expected) in [
        (0, Ok(("native", 0))),
        (MODULE, Ok(("pool:general", MODULE))),
        (TOOLS, Ok(("native", TOOLS))),
        (MODULE | TOOLS, Err(RouteError::NoTarget)),
        (2, Ok(("native", 0))),
    ] {
        let wish = Wish {
            needs,
            ..Wish::default()
        };
        let decided = router.decide(&wish, 0);
        let found = decided
            .as_ref()
            .map(|found| (found.ticket.target().name(), found.lacking));
        assert_eq!(found.map_err(Clone::clone), expected, "{needs}");
    }
}

#[test]
fn an_explanation_is_what_a_decision_would_be_and_changes_nothing() {
    let router = Router::default();
    let full = Options {
        limit: Some(1),
        ..Options::default()
    };
    let lacking = Options {
        lacks: 2,
        ..Options::default()
    };
    router.add("a", Side::Python, &full).unwrap();
    router.add("b", Side::Python, &fragile()).unwrap();
    router.add("c", Side::Python, &lacking).unwrap();
    router.add("d", Side::Python, &Options::default()).unwrap();
    router.decide(&Wish::default(), 0).unwrap(); // a is full
    for _ in 0..20 {
        let wish = Wish {
            wanted: Some("b"),
            ..Wish::default()
        };
        if let Ok(decision) = router.decide(&wish, 0) {
            end(&router, &decision, Outcome::Failed, 0);
        }
    }
    let wish = Wish {
        needs: 2,
        ..Wish::default()
    };
    let before: Vec<_> = router.all().iter().map(|(_, t)| t.counts()).collect();
    let told: Vec<_> = router
        .explain(&wish, 0)
        .into_iter()
        .map(|(_, target, standing)| (target.name().to_owned(), standing))
        .collect();
    let expected = [
        ("a", Standing::Full),
        ("b", Standing::BreakerOpen),
        ("d", Standing::Ready),
        ("c", Standing::Unable { lacking: 2 }),
    ];
    assert_eq!(
        told,
        expected.map(|(name, standing)| (name.to_owned(), standing))
    );
    assert_eq!(router.decide(&wish, 0).unwrap().ticket.target().name(), "d");
    let wanted = Wish {
        wanted: Some("d"),
        ..Wish::default()
    };
    let elsewhere = router.explain(&wanted, 0)[1].2;
    assert_eq!(elsewhere, Standing::NotWanted);
    let after: Vec<_> = router.all().iter().map(|(_, t)| t.counts()).collect();
    assert_eq!(before[..3], after[..3]);
}

#[test]
fn every_call_is_counted_once_from_many_threads_while_targets_change() {
    const THREADS: u64 = 8;
    const CALLS: u64 = 3_000;
    let router = both();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let router = &router;
            scope.spawn(move || {
                for call in 0..CALLS {
                    let cannot = if (thread + call) % 2 == 0 {
                        unable(&[])
                    } else {
                        unable(&[1])
                    };
                    let decision = router
                        .decide(
                            &Wish {
                                unable: cannot,
                                ..Wish::default()
                            },
                            0,
                        )
                        .unwrap();
                    let outcome =
                        [Outcome::Served, Outcome::Failed, Outcome::Cancelled][(call % 3) as usize];
                    end(router, &decision, outcome, 0);
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..500 {
                let slot = router
                    .add("passing", Side::Python, &Options::default())
                    .unwrap();
                router.remove(slot).unwrap();
            }
        });
    });
    let counts: Vec<Counts> = router
        .all()
        .iter()
        .map(|(_, target)| target.counts())
        .collect();
    let sum = |of: fn(&Counts) -> u64| counts.iter().map(of).sum::<u64>();
    assert_eq!(sum(|counts| counts.in_flight), 0);
    for of in [
        |c: &Counts| c.served,
        |c: &Counts| c.failed,
        |c: &Counts| c.cancelled,
    ] {
        assert_eq!(sum(of), THREADS * CALLS / 3);
    }
    assert_eq!(
        counts[1].served + counts[1].failed + counts[1].cancelled,
        THREADS * CALLS / 2
    );
    assert_eq!(counts[2], Counts::default());
}

#[test]
fn each_call_pays_for_its_share_of_retries_and_a_retry_pays_for_none() {
    let router = Router::default();
    let budget = BudgetSettings {
        share: 0.5,
        per_second: 0.0,
        ..BudgetSettings::default()
    };
    let options = Options {
        budget: Some(budget),
        ..Options::default()
    };
    router.add("native", Side::Native, &options).unwrap();
    for again in [false, false, false, false, true, true, true] {
        let decision = router
            .decide(
                &Wish {
                    again,
                    ..Wish::default()
                },
                0,
            )
            .unwrap();
        end(&router, &decision, Outcome::Refused, 0);
    }
    let target = router.target(0).unwrap();
    assert_eq!(target.budget().unwrap().left(0), 2);
    assert!(Target::budget(&router.all()[0].1).unwrap().take(0));
}
