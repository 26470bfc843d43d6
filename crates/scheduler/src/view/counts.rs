//! How many pods on each node somebody's rules are about: counted once, then kept with each pod that comes and goes.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pod::{Matcher, PodInfo, PodKind, PodTerm};

/// When there are more answers than this, those not asked for lately are forgotten: they can be counted again.
const MANY: usize = 512;
/// So many kinds of pods are remembered with what is about them.
const KINDS: usize = 4096;

/// Which pods are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(crate) matcher: Arc<Matcher>,
    /// Without those that are being deleted.
    pub(crate) staying: bool,
}

/// The pods of each node that a question is about.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    answers: Vec<Option<Answer>>,
    known: HashMap<Question, usize>,
    /// The answers that pods of a kind count in.
    of_kind: HashMap<usize, (Arc<PodKind>, Arc<[usize]>)>,
    asked: u64,
}

#[derive(Debug)]
struct Answer {
    question: Question,
    on: Vec<u32>,
    asked: u64,
}

impl Counts {
    pub(crate) fn find(&self, question: &Question) -> Option<&[u32]> {
        let answer = self.answers[*self.known.get(question)?].as_ref()?;
        Some(&answer.on)
    }

    /// Notes that somebody asks; says whether the question is known.
    pub(crate) fn ask(&mut self, question: &Question) -> bool {
        self.asked += 1;
        let Some(place) = self.known.get(question) else { return false };
        if let Some(answer) = &mut self.answers[*place] {
            answer.asked = self.asked;
        }
        true
    }

    pub(crate) fn learn(&mut self, question: Question, on: Vec<u32>) {
        if self.known.len() >= MANY {
            self.forget_old();
        }
        let place = self.answers.iter().position(Option::is_none).unwrap_or_else(|| {
            self.answers.push(None);
            self.answers.len() - 1
        });
        self.known.insert(question.clone(), place);
        self.answers[place] = Some(Answer { question, on, asked: self.asked });
        self.of_kind.clear();
    }

    /// Forgets half of the answers: those that nobody has asked for the longest.
    fn forget_old(&mut self) {
        let mut times: Vec<u64> = self.answers.iter().flatten().map(|a| a.asked).collect();
        times.sort_unstable();
        let bound = times[times.len() / 2];
        self.forget(|answer| answer.asked < bound);
    }

    fn forget(&mut self, which: impl Fn(&Answer) -> bool) {
        for place in &mut self.answers {
            if place.as_ref().is_some_and(&which)
                && let Some(answer) = place.take()
            {
                self.known.remove(&answer.question);
            }
        }
        self.of_kind.clear();
    }

    /// The labels of a namespace are not what they were.
    pub(crate) fn forget_namespaces(&mut self) {
        self.forget(|answer| answer.question.matcher.asks_namespaces());
    }

    /// A pod has come to a node, or (with minus one) left it.
    pub(crate) fn count(
        &mut self,
        row: usize,
        pod: &PodInfo,
        times: i32,
        matches: impl Fn(&Matcher, &PodKind) -> bool,
    ) {
        if self.known.is_empty() {
            return;
        }
        let key = Arc::as_ptr(&pod.kind) as usize;
        let places = match self.of_kind.get(&key) {
            Some((_, places)) => places.clone(),
            None => {
                if self.of_kind.len() >= KINDS {
                    self.of_kind.clear();
                }
                let all = self.answers.iter().enumerate();
                let is = |answer: &Option<Answer>| {
                    answer.as_ref().is_some_and(|a| matches(&a.question.matcher, &pod.kind))
                };
                let places: Arc<[usize]> =
                    all.filter(|(_, answer)| is(answer)).map(|(place, _)| place).collect();
                self.of_kind.insert(key, (pod.kind.clone(), places.clone()));
                places
            }
        };
        for place in places.iter() {
            if let Some(answer) = &mut self.answers[*place]
                && !(answer.question.staying && pod.deleting)
            {
                answer.on[row] = answer.on[row].wrapping_add_signed(times);
            }
        }
    }

    pub(crate) fn push(&mut self) {
        self.answers.iter_mut().flatten().for_each(|answer| answer.on.push(0));
    }

    pub(crate) fn remove(&mut self, row: usize) {
        self.answers.iter_mut().flatten().for_each(|answer| {
            answer.on.swap_remove(row);
        });
    }
}

/// What placed pods say about others: where those are that say it.
#[derive(Debug, Default)]
pub(crate) struct Said {
    terms: Vec<Option<SaidTerm>>,
    known: HashMap<(Arc<Matcher>, usize), usize>,
    /// The terms that are about pods of a kind.
    about_kind: HashMap<usize, (Arc<PodKind>, Arc<[usize]>)>,
}

#[derive(Debug)]
pub(crate) struct SaidTerm {
    matcher: Arc<Matcher>,
    pub(crate) topology: usize,
    /// So many pods on a node will not have such pods in their domain.
    pub(crate) against: HashMap<u32, u32>,
    /// How much the pods on a node would like, or dislike, such pods in their domain.
    pub(crate) liking: HashMap<u32, i64>,
    /// So many pods on a node must have such pods in their domain.
    pub(crate) needing: HashMap<u32, u32>,
    /// How many pods say so.
    speakers: usize,
}

impl Said {
    /// A pod that says something has come to a node, or left it; `topology` knows the columns.
    pub(crate) fn hear(
        &mut self,
        row: usize,
        pod: &PodInfo,
        times: i32,
        mut topology: impl FnMut(&Arc<str>) -> usize,
    ) {
        let rules = &pod.kind.rules;
        for term in &rules.near_terms {
            self.note(term, topology(&term.topology), row, times, |said| &mut said.needing, 1);
        }
        for (term, weight) in &rules.preferred {
            self.note(term, topology(&term.topology), row, times, |said| &mut said.liking, *weight);
        }
        for term in &rules.apart {
            self.note(term, topology(&term.topology), row, times, |said| &mut said.against, 1);
        }
    }

    fn note<N: Amount>(
        &mut self,
        term: &PodTerm,
        topology: usize,
        row: usize,
        times: i32,
        amounts: impl Fn(&mut SaidTerm) -> &mut HashMap<u32, N>,
        weight: i64,
    ) {
        let key = (term.matcher.clone(), topology);
        let place = match self.known.get(&key) {
            Some(place) => *place,
            None => {
                let place = self.terms.iter().position(Option::is_none).unwrap_or(self.terms.len());
                let said = SaidTerm {
                    matcher: term.matcher.clone(),
                    topology,
                    against: HashMap::new(),
                    liking: HashMap::new(),
                    needing: HashMap::new(),
                    speakers: 0,
                };
                if place == self.terms.len() {
                    self.terms.push(Some(said));
                } else {
                    self.terms[place] = Some(said);
                }
                self.known.insert(key.clone(), place);
                self.about_kind.clear();
                place
            }
        };
        let Some(said) = &mut self.terms[place] else { return };
        let row = row_number(row);
        let amount = amounts(said).entry(row).or_default();
        amount.add(weight * i64::from(times));
        if amount.is_none() {
            amounts(said).remove(&row);
        }
        said.speakers = said.speakers.wrapping_add_signed(times as isize);
        if said.speakers == 0 {
            self.terms[place] = None;
            self.known.remove(&key);
            self.about_kind.clear();
        }
    }

    /// Gets ready to be asked about a kind of pod.
    pub(crate) fn prepare(&mut self, kind: &Arc<PodKind>, matches: impl Fn(&Matcher, &PodKind) -> bool) {
        let key = Arc::as_ptr(kind) as usize;
        if self.known.is_empty() || self.about_kind.contains_key(&key) {
            return;
        }
        if self.about_kind.len() >= KINDS {
            self.about_kind.clear();
        }
        let all = self.terms.iter().enumerate();
        let places =
            all.filter(|(_, term)| term.as_ref().is_some_and(|t| matches(&t.matcher, kind))).map(|(n, _)| n);
        let places = places.collect();
        self.about_kind.insert(key, (kind.clone(), places));
    }

    /// What is said about a kind of pod that this is prepared for.
    pub(crate) fn about(&self, kind: &Arc<PodKind>) -> impl Iterator<Item = &SaidTerm> {
        let places = self.about_kind.get(&(Arc::as_ptr(kind) as usize));
        let places = places.into_iter().flat_map(|(_, places)| places.iter());
        places.filter_map(|place| self.terms[*place].as_ref())
    }

    pub(crate) fn forget_namespaces(&mut self) {
        self.about_kind.clear();
    }

    /// A node has gone, after its pods; the last one has its row now.
    pub(crate) fn remove(&mut self, row: usize, last: usize) {
        for said in self.terms.iter_mut().flatten() {
            if let Some(moved) = said.against.remove(&row_number(last)) {
                said.against.insert(row_number(row), moved);
            }
            if let Some(moved) = said.liking.remove(&row_number(last)) {
                said.liking.insert(row_number(row), moved);
            }
            if let Some(moved) = said.needing.remove(&row_number(last)) {
                said.needing.insert(row_number(row), moved);
            }
        }
    }
}

/// There are fewer nodes than that.
fn row_number(row: usize) -> u32 {
    u32::try_from(row).unwrap_or(u32::MAX)
}

trait Amount: Default {
    fn add(&mut self, more: i64);
    fn is_none(&self) -> bool;
}

impl Amount for u32 {
    fn add(&mut self, more: i64) {
        *self = self.wrapping_add_signed(more as i32);
    }

    fn is_none(&self) -> bool {
        *self == 0
    }
}

impl Amount for i64 {
    fn add(&mut self, more: i64) {
        *self += more;
    }

    fn is_none(&self) -> bool {
        *self == 0
    }
}
