//! Faults: which, when and on whom, as the seed says.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    net::Weather,
    node::{NODES, Node},
    random::Random,
    trace,
    world::World,
};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node loses power.
    Crash,
    /// A node loses power in the middle of a write.
    Tear,
    /// All nodes lose power at once.
    Blackout,
    /// A node is stopped in good order.
    Stop,
    /// The leader is asked to hand over.
    Transfer,
    /// A node stands still, and later goes on as if nothing had been.
    Pause,
    /// A node is cut off, both ways.
    Isolate,
    /// One direction of one or all links of a node is cut.
    OneWay,
    /// Two nodes do not see each other, the third sees both.
    Bridge,
    /// Whoever comes to lead is cut off soon, and who was cut off before is back: tails of many terms meet.
    Hunt,
    /// Frames are lost, doubled and late.
    Storm,
    /// A disk is slow.
    SlowDisk,
    /// A disk stands still.
    StalledDisk,
    /// A disk takes no new file.
    FullDisk,
}

/// Faults of nodes.
const OF_NODES: [Fault; 6] = [Fault::Crash, Fault::Tear, Fault::Blackout, Fault::Stop, Fault::Transfer, Fault::Pause];
/// Faults of what nodes stand on.
const OF_SURROUNDINGS: [Fault; 8] = [
    Fault::Isolate,
    Fault::OneWay,
    Fault::Bridge,
    Fault::Hunt,
    Fault::Storm,
    Fault::SlowDisk,
    Fault::StalledDisk,
    Fault::FullDisk,
];

/// The kinds that a run has: some kinds hide others, so that no run has all.
pub fn choose(random: &mut Random) -> (Vec<Fault>, Vec<Fault>) {
    let mut some = |of: &[Fault]| {
        let mut some: Vec<_> = of.iter().copied().filter(|_| random.chance(50)).collect();
        if some.is_empty() {
            some.push(*random.pick(of));
        }
        some
    };
    (some(&OF_NODES), some(&OF_SURROUNDINGS))
}

/// Makes faults of these kinds, one after the other, until the run is over; then mends the last.
pub async fn run(world: Arc<World>, name: &str, kinds: Vec<Fault>) {
    let mut random = Random::new(world.plan.seed, name);
    let mut until_rest = random.within(4, 20);
    while !world.is_over() {
        let most = world.plan.calm;
        sleep(random.millis(50, most)).await;
        if world.is_over() {
            return;
        }
        let fault = *random.pick(&kinds);
        strike(&world, &mut random, fault).await;
        trace::event(format_args!("{fault:?} is over"));
        until_rest -= 1;
        if until_rest == 0 {
            // Nodes that are never up for long make no progress.
            until_rest = random.within(4, 20);
            sleep(random.millis(3000, 6000)).await;
        }
    }
}

/// The node that leads, or another: leaders are hit more often.
fn victim(world: &World, random: &mut Random) -> usize {
    let leads = |at: &usize| world.nodes[*at].up().is_some_and(|up| up.wal.leadership().borrow().is_leader);
    let leader = (0..NODES.len()).find(leads);
    let any = random.below(NODES.len() as u64) as usize;
    if random.chance(60) { leader.unwrap_or(any) } else { any }
}

async fn hold(random: &mut Random) {
    let most = *random.pick(&[300, 1500, 4000]);
    let time = random.millis(20, most);
    sleep(time).await;
}

async fn strike(world: &World, random: &mut Random, fault: Fault) {
    let at = victim(world, random);
    let node = &world.nodes[at];
    let others: Vec<_> = NODES.iter().copied().filter(|id| *id != node.id).collect();
    let net = &world.site.net;
    world.struck(fault);
    trace::event(format_args!("{fault:?} strikes n{}", node.id));
    match fault {
        Fault::Crash => node.crash(),
        Fault::Tear => {
            node.tear(random.within(1, 4));
            sleep(Duration::from_millis(300)).await;
        }
        Fault::Blackout => world.nodes.iter().for_each(|node| node.crash()),
        Fault::Stop => node.stop().await,
        Fault::Transfer => {
            let to = *random.pick(&others);
            if let Some(up) = node.up() {
                let _ = up.wal.transfer_leadership(to).await; // a wish; a node that stops meanwhile is no fault
            }
        }
        Fault::Pause => {
            net.pause(node.id, true);
            hold(random).await;
            net.pause(node.id, false);
        }
        Fault::Isolate => {
            let cut = |cut| others.iter().for_each(|other| both(world, node.id, *other, cut));
            cut(true);
            hold(random).await;
            cut(false);
        }
        Fault::OneWay => {
            let (out, all) = (random.chance(50), random.chance(50));
            let some = if all { &others[..] } else { &others[..1] };
            let cut = |cut| {
                some.iter().for_each(|other| {
                    let (from, to) = if out { (node.id, *other) } else { (*other, node.id) };
                    net.cut(from, to, cut);
                });
            };
            cut(true);
            hold(random).await;
            cut(false);
        }
        Fault::Bridge => {
            let other = *random.pick(&others);
            both(world, node.id, other, true);
            hold(random).await;
            both(world, node.id, other, false);
        }
        Fault::Hunt => hunt(world, random).await,
        Fault::Storm => {
            let (lost, doubled, late) = (random.below(40), random.below(40), random.below(40));
            net.set_weather(Weather { lost, doubled, delay: random.within(1, 60), late });
            hold(random).await;
            net.set_weather(world.plan.weather);
        }
        Fault::SlowDisk => {
            let low = random.within(10, 300);
            node.set_pace(Some((low, low * 3)));
            hold(random).await;
            node.set_pace(None);
        }
        Fault::StalledDisk => {
            node.stall(true);
            hold(random).await;
            node.stall(false);
        }
        Fault::FullDisk => {
            node.fill(true);
            hold(random).await;
            node.fill(false);
        }
    }
}

async fn hunt(world: &World, random: &mut Random) {
    let cut = |node: u64, cut| NODES.iter().filter(|other| **other != node).for_each(|o| both(world, node, *o, cut));
    let mut out = None;
    for _ in 0..random.within(3, 10) {
        let leads = |node: &&Arc<Node>| {
            Some(node.id) != out && node.up().is_some_and(|up| up.wal.leadership().borrow().is_leader)
        };
        let mut patience = 2000;
        let next = loop {
            let found = world.nodes.iter().find(leads).map(|node| node.id);
            patience -= 1;
            if found.is_some() || patience == 0 {
                break found;
            }
            sleep(Duration::from_millis(1)).await;
        };
        let most = *random.pick(&[0, 3, 25]);
        sleep(random.millis(0, most)).await;
        out.iter().for_each(|node| cut(*node, false));
        next.iter().for_each(|node| cut(*node, true));
        trace::event(format_args!("n{next:?} is cut off, n{out:?} is back"));
        out = next;
    }
    out.iter().for_each(|node| cut(*node, false));
}

fn both(world: &World, one: u64, two: u64, cut: bool) {
    world.site.net.cut(one, two, cut);
    world.site.net.cut(two, one, cut);
}
