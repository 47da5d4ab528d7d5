//! When a service is started, killed and waited for, and when the board may be reset: decided here, done elsewhere.
//!
//! Pure: time comes as an argument, actions go out as values. What runs is told by [`Service::started`],
//! [`Service::ready`], [`Service::heard`] and [`Service::exited`]; what is to be done is asked by [`Service::tick`].

use core::time::Duration;

/// A moment, as time since the kernel's start.
pub(crate) type Moment = Duration;

/// How long to bear with a service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// From start to `READY=1`; opening a large database on an SD card takes its time.
    pub(crate) start: Duration,
    /// Between two signs of life.
    pub(crate) silence: Duration,
    /// Before the first restart; doubles with each.
    pub(crate) first_delay: Duration,
    /// The longest wait before a restart.
    pub(crate) longest_delay: Duration,
    /// A service that was ready for so long is well: its restarts are forgotten.
    pub(crate) well: Duration,
    /// So long in all may a service not be ready before the board is reset, which mends what a restart does not.
    pub(crate) allowance: Duration,
    /// From being asked to stop to being killed.
    pub(crate) drain: Duration,
}

impl Patience {
    /// What most services get.
    pub(crate) const USUAL: Self = Self {
        start: Duration::from_mins(1),
        silence: Duration::from_secs(20),
        first_delay: Duration::from_secs(1),
        longest_delay: Duration::from_mins(1),
        well: Duration::from_mins(5),
        allowance: Duration::from_mins(3),
        drain: Duration::from_secs(30),
    };
}

/// What is to be done with a service now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    /// Nothing.
    Rest,
    /// Start it.
    Start,
    /// Kill it and all that it started: it said nothing for too long.
    KillHung,
    /// Kill it: it was asked to stop and did not.
    KillSlow,
}

/// Why a service ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Cause {
    /// Whatever is not below.
    Failure,
    /// It cannot use its settings (`EX_CONFIG`): neither a restart nor a reset mends that.
    Settings,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Not running, to be started.
    Waiting {
        until: Moment,
    },
    Starting {
        since: Moment,
    },
    Ready {
        since: Moment,
        heard: Moment,
    },
    /// Killed, not yet gone.
    Dying,
    /// Asked to stop; started again afterwards if `again`.
    Draining {
        kill_at: Moment,
        again: bool,
    },
    Stopped,
}

/// One supervised service.
#[derive(Debug)]
pub(crate) struct Service {
    patience: Patience,
    state: State,
    restarts: u32,
    delay: Duration,
    /// How long it has not been ready, since it was last well.
    trouble: Duration,
    /// Up to when `trouble` has been reckoned.
    reckoned: Moment,
    /// It said that it cannot use its settings; holds until it is ready.
    unusable: bool,
}

impl Service {
    /// A service that waits for [`Self::begin`].
    pub(crate) fn new(patience: Patience) -> Self {
        Self {
            patience,
            state: State::Stopped,
            restarts: 0,
            delay: patience.first_delay,
            trouble: Duration::ZERO,
            reckoned: Duration::ZERO,
            unusable: false,
        }
    }

    /// Wants it running from now on. Changes nothing for one that runs.
    pub(crate) fn begin(&mut self, now: Moment) {
        self.reckon(now);
        if self.state == State::Stopped || (self.unusable && matches!(self.state, State::Waiting { .. })) {
            self.state = State::Waiting { until: now };
            self.unusable = false;
        }
    }

    /// What is to be done now. To be asked again at [`Self::deadline`] at the latest.
    pub(crate) fn tick(&mut self, now: Moment) -> Action {
        self.reckon(now);
        match self.state {
            State::Waiting { until } if until <= now => Action::Start,
            State::Starting { since } if since + self.patience.start <= now => self.kill(Action::KillHung),
            State::Ready { heard, .. } if heard + self.patience.silence <= now => self.kill(Action::KillHung),
            State::Ready { since, .. } if since + self.patience.well <= now => {
                self.trouble = Duration::ZERO;
                self.delay = self.patience.first_delay;
                Action::Rest
            }
            State::Draining { kill_at, again } if kill_at <= now => {
                // Once is enough: what SIGKILL does not end, a second one does not either.
                self.state = State::Draining { kill_at: Duration::MAX, again };
                Action::KillSlow
            }
            _ => Action::Rest,
        }
    }

    /// It was started.
    pub(crate) fn started(&mut self, now: Moment) {
        self.reckon(now);
        self.state = State::Starting { since: now };
    }

    /// `READY=1`. True the first time after a start.
    pub(crate) fn ready(&mut self, now: Moment) -> bool {
        self.reckon(now);
        if !matches!(self.state, State::Starting { .. }) {
            return false;
        }
        self.state = State::Ready { since: now, heard: now };
        self.unusable = false;
        true
    }

    /// `WATCHDOG=1`.
    pub(crate) fn heard(&mut self, now: Moment) {
        if let State::Ready { heard, .. } = &mut self.state {
            *heard = now;
        }
    }

    /// It ended, or could not be started.
    pub(crate) fn exited(&mut self, now: Moment, cause: Cause) {
        self.reckon(now);
        self.state = match (self.state, cause) {
            (State::Draining { again: false, .. } | State::Stopped, _) => State::Stopped,
            (State::Draining { again: true, .. }, _) => State::Waiting { until: now },
            (_, Cause::Settings) => {
                self.unusable = true;
                // New settings start it at once; this try is for a certificate that was put in its place meanwhile.
                State::Waiting { until: now + self.patience.longest_delay }
            }
            (_, Cause::Failure) => {
                self.restarts = self.restarts.saturating_add(1);
                let until = now + self.delay;
                self.delay = (self.delay * 2).min(self.patience.longest_delay);
                State::Waiting { until }
            }
        };
    }

    /// Asks it to stop, for good or to be started `again`. True: it runs, so a signal is due.
    pub(crate) fn stop(&mut self, now: Moment, again: bool) -> bool {
        self.reckon(now);
        match self.state {
            State::Starting { .. } | State::Ready { .. } => {
                self.state = State::Draining { kill_at: now + self.patience.drain, again };
                true
            }
            State::Draining { kill_at, .. } => {
                self.state = State::Draining { kill_at, again };
                false
            }
            State::Dying => {
                self.state = State::Draining { kill_at: Duration::MAX, again };
                false
            }
            State::Waiting { .. } | State::Stopped => {
                self.state = if again { State::Waiting { until: now } } else { State::Stopped };
                false
            }
        }
    }

    /// Until when [`Self::tick`] has nothing to say; `None`: until something happens.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Starting { since } => Some(since + self.patience.start),
            State::Ready { heard, .. } => Some(heard + self.patience.silence),
            State::Draining { kill_at, .. } => (kill_at < Duration::MAX).then_some(kill_at),
            State::Dying | State::Stopped => None,
        }
    }

    /// Whether it answers.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }

    /// Whether it is stopped, and wanted so.
    pub(crate) fn is_stopped(&self) -> bool {
        self.state == State::Stopped
    }

    /// Whether the hardware watchdog may be fed as far as this service goes: it answers, or is inside its allowance.
    pub(crate) fn is_borne(&self, now: Moment) -> bool {
        self.trouble_at(now) <= self.patience.allowance
    }

    /// How often it was started again after a failure.
    pub(crate) fn restarts(&self) -> u32 {
        self.restarts
    }

    fn kill(&mut self, action: Action) -> Action {
        self.state = State::Dying;
        action
    }

    /// Its trouble with the time since the last look, if it should have been ready and was not.
    fn trouble_at(&self, now: Moment) -> Duration {
        let counts = matches!(self.state, State::Waiting { .. } | State::Starting { .. } | State::Dying);
        let more = if counts && !self.unusable { now.saturating_sub(self.reckoned) } else { Duration::ZERO };
        self.trouble + more
    }

    fn reckon(&mut self, now: Moment) {
        self.trouble = self.trouble_at(now);
        self.reckoned = self.reckoned.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    /// Started at `seconds`.
    fn running(seconds: u64) -> Service {
        let mut service = Service::new(Patience::USUAL);
        service.begin(at(seconds));
        assert_eq!(service.tick(at(seconds)), Action::Start);
        service.started(at(seconds));
        service
    }

    #[test]
    fn a_service_that_answers_is_left_alone() {
        let mut service = running(10);
        assert!(!service.is_ready());
        assert!(service.ready(at(12)) && service.is_ready());
        assert!(!service.ready(at(13)), "told once");
        for second in 12..2000 {
            if second % 10 == 0 {
                service.heard(at(second));
            }
            assert_eq!(service.tick(at(second)), Action::Rest);
            assert!(service.is_borne(at(second)));
        }
    }

    #[test]
    fn a_service_that_goes_silent_is_killed_once_and_started_again() {
        let mut service = running(0);
        service.ready(at(1));
        assert_eq!(service.deadline(), Some(at(21)));
        assert_eq!(service.tick(at(20)), Action::Rest);
        assert_eq!(service.tick(at(21)), Action::KillHung);
        assert_eq!(service.tick(at(22)), Action::Rest, "a second SIGKILL helps nobody");
        service.exited(at(22), Cause::Failure);
        assert_eq!((service.tick(at(22)), service.tick(at(23))), (Action::Rest, Action::Start));
        assert_eq!(service.restarts(), 1);
    }

    #[test]
    fn one_that_never_gets_ready_is_killed_after_a_minute() {
        let mut service = running(0);
        service.heard(at(30));
        assert_eq!(service.tick(at(59)), Action::Rest);
        assert_eq!(service.tick(at(60)), Action::KillHung);
    }

    #[test]
    fn restarts_come_ever_later_and_at_once_again_after_five_good_minutes() {
        let mut service = running(0);
        let mut now = at(0);
        let mut delays = Vec::new();
        for _ in 0..9 {
            service.exited(now, Cause::Failure);
            let until = service.deadline().unwrap();
            delays.push(until.saturating_sub(now).as_secs());
            now = until;
            assert_eq!(service.tick(now), Action::Start);
            service.started(now);
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        service.ready(now);
        now += at(300);
        service.heard(now);
        assert_eq!(service.tick(now), Action::Rest);
        service.exited(now, Cause::Failure);
        assert_eq!(service.deadline(), Some(now + at(1)));
    }

    #[test]
    fn three_minutes_of_trouble_in_all_reset_the_board() {
        let mut service = running(0);
        let mut now = at(0);
        // It crashes whenever it gets ready, which is a crash loop all the same.
        while service.is_borne(now) {
            service.ready(now);
            service.exited(now, Cause::Failure);
            now = service.deadline().unwrap();
            service.tick(now);
            service.started(now);
            assert!(now < at(600), "never given up");
        }
        assert!(now > at(180));
    }

    #[test]
    fn trouble_is_forgotten_once_it_is_well() {
        let mut service = running(0);
        service.exited(at(50), Cause::Failure);
        service.tick(at(51));
        service.started(at(51));
        service.ready(at(170));
        service.heard(at(470));
        service.tick(at(470));
        service.exited(at(471), Cause::Failure);
        assert!(service.is_borne(at(640)));
        assert!(!service.is_borne(at(652)));
    }

    #[test]
    fn settings_it_cannot_use_never_reset_the_board() {
        let mut service = running(0);
        service.exited(at(1), Cause::Settings);
        assert!(service.is_borne(at(100_000)));
        assert_eq!(service.restarts(), 0);
        assert_eq!(service.tick(at(60)), Action::Rest);
        assert_eq!(service.tick(at(61)), Action::Start);
        service.exited(at(62), Cause::Settings);
        // New settings do not wait for the minute.
        service.begin(at(70));
        assert_eq!(service.tick(at(70)), Action::Start);
    }

    #[test]
    fn a_stop_drains_then_kills_and_stays_stopped() {
        let mut service = running(0);
        service.ready(at(1));
        assert!(service.stop(at(10), false));
        assert!(!service.stop(at(11), false), "one signal is enough");
        assert_eq!(service.tick(at(39)), Action::Rest);
        assert_eq!(service.tick(at(40)), Action::KillSlow);
        assert_eq!((service.tick(at(41)), service.deadline()), (Action::Rest, None));
        service.exited(at(41), Cause::Failure);
        assert!(service.is_stopped() && service.deadline().is_none());
        assert!(service.is_borne(at(100_000)), "what is not wanted is not missed");
    }

    #[test]
    fn a_stop_while_it_waits_or_dies_is_a_stop() {
        let mut waiting = running(0);
        waiting.exited(at(1), Cause::Failure);
        assert!(!waiting.stop(at(2), false) && waiting.is_stopped());
        let mut dying = running(0);
        dying.tick(at(60));
        assert!(!dying.stop(at(61), false) && !dying.is_stopped());
        dying.exited(at(62), Cause::Failure);
        assert!(dying.is_stopped());
    }

    #[test]
    fn an_ordered_restart_is_no_failure() {
        let mut service = running(0);
        service.ready(at(1));
        assert!(service.stop(at(10), true));
        service.exited(at(12), Cause::Failure);
        assert_eq!((service.tick(at(12)), service.restarts()), (Action::Start, 0));
    }
}
