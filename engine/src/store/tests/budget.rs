//! Background work that waits for its budget, and what does not. Time is simulated.

use super::{
    outage::{counter, in_simulated_time, of_cause, simulated},
    *,
};

fn ten_a_second() -> Limits {
    Limits { requests_per_second: Some(10.0), ..Limits::default() }
}

#[test]
fn readers_go_into_debt_and_background_work_pays_it_off() {
    in_simulated_time(async {
        let (store, _, clock) = simulated(ten_a_second(), None);
        store.put_new("a", &body("text"), Cause::Flush).await.unwrap();
        for _ in 0..1000 {
            store.get("a", 0..4, Cause::Page).await.unwrap();
        }
        assert_eq!((clock.now(), store.over_budget()), (Duration::ZERO, None));
        let text = body("text");
        let flush = store.put_new("b", &text, Cause::Flush);
        let (flushed, said) = tokio::join!(flush, async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            (store.over_budget(), counter(&store, "store_budget_waiting"))
        });
        flushed.unwrap();
        let why = said.0.unwrap();
        assert!(why.contains("flushes and the archive wait") && why.contains("10 requests a second"), "{why}");
        assert_eq!((said.1, counter(&store, "store_budget_held"), store.over_budget()), (1, 1, None));
        assert_eq!(clock.now(), Duration::from_secs(10), "the longest that a flush waits");
    });
}

#[test]
fn background_work_keeps_to_the_rate_and_deletion_waits_for_all_others() {
    in_simulated_time(async {
        let (store, _, clock) = simulated(ten_a_second(), None);
        let until = Duration::from_secs(60);
        let flushes = async {
            let mut stored = 0;
            while clock.now() < until {
                store.put_new(&format!("{stored}"), &body("text"), Cause::Flush).await.unwrap();
                stored += 1;
            }
        };
        let deletions = async {
            while clock.now() < until {
                store.delete("dead", Cause::Gc).await.unwrap();
            }
        };
        tokio::join!(flushes, deletions);
        let (flushes, deletions) = (of_cause(&store, Cause::Flush), of_cause(&store, Cause::Gc));
        // What was saved up, and a minute's.
        assert!((550..=705).contains(&flushes), "{flushes} flushes");
        assert!(deletions < 60, "{deletions} deletions");
    });
}

#[test]
fn a_flush_that_makes_room_for_commits_waits_for_nothing() {
    in_simulated_time(async {
        let (store, _, clock) = simulated(ten_a_second(), None);
        store.set_urgent(true);
        for number in 0..500 {
            store.put_new(&format!("{number}"), &body("text"), Cause::Flush).await.unwrap();
        }
        assert_eq!(clock.now(), Duration::ZERO);
        store.set_urgent(false);
        store.put_new("last", &body("text"), Cause::Flush).await.unwrap();
        assert!(clock.now() > Duration::from_secs(9));
    });
}

#[test]
fn dollars_are_a_budget_too_and_what_is_free_needs_none() {
    in_simulated_time(async {
        let prices = Prices { put_per_1000: 1000.0, ..Prices::default() };
        let (store, _, clock) = simulated(Limits { dollars_per_day: Some(24.0), prices, ..Limits::default() }, None);
        store.put_new("0", &body("text"), Cause::Flush).await.unwrap();
        store.put_new("1", &body("text"), Cause::Flush).await.unwrap();
        let first = clock.now();
        assert!(first >= Duration::from_secs(9), "a dollar an hour");
        store.delete("0", Cause::Gc).await.unwrap();
        assert_eq!(clock.now(), first);
    });
}
