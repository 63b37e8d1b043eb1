// A rank that is lost is named, and all are out. Faults are certain: one rank stands, is stopped, is gone.
// Nothing here asks how long it took; a test that hangs is ended by ctest.
#include "engine/distributed/pulse.h"

#include <gmock/gmock.h>

#include "engine/distributed/agreement.h"
#include "tests/support/error_of.h"
#include "tests/support/launch.h"

namespace retort::test {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

int count(const std::string& text, const std::string& word) {
  int n = 0;
  for (std::size_t at = 0; (at = text.find(word, at)) != std::string::npos; ++at) ++n;
  return n;
}

class PulseOf4 : public UnderMpi {
 protected:
  Launched run(const std::string& mode, int bad) const {
    return launch(GetParam(), 4, {RETORT_PULSE_PROGRAM, mode, std::to_string(bad), "4"});
  }
};
INSTANTIATE_TEST_SUITE_P(Mpi, PulseOf4, ::testing::ValuesIn(known_mpis()), family_of);

TEST_P(PulseOf4, a_rank_that_stands_still_is_named_once_and_all_leave) {
  const Launched r = run("hang", 2);
  EXPECT_NE(r.status, 0);
  EXPECT_EQ(count(r.said, "lost: rank 2 ("), 1) << r.all();
  EXPECT_THAT(r.said, ContainsRegex("has not moved for [0-9.]+ s; its last word was of step 5"));
  EXPECT_EQ(count(r.said, "lost: "), 1) << r.all();
  EXPECT_THAT(r.said, Not(HasSubstr("ends after")));
}

TEST_P(PulseOf4, rank_0_is_missed_by_the_others_when_it_is_stopped) {
  const Launched r = run("stop", 0);
  EXPECT_NE(r.status, 0);
  EXPECT_EQ(count(r.said, "lost: rank 0 ("), 1) << r.all();
  EXPECT_THAT(r.said, ContainsRegex("was not heard of for [0-9.]+ s"));
  EXPECT_EQ(count(r.said, "lost: "), 1) << r.all();
}

// The launcher sees this one too, and may be first.
TEST_P(PulseOf4, a_rank_that_is_killed_takes_all_with_it) {
  const Launched r = run("die", 1);
  EXPECT_NE(r.status, 0);
  EXPECT_THAT(r.said, Not(HasSubstr("ends after")));
  EXPECT_EQ(count(r.said, "lost: "), count(r.said, "lost: rank 1 (")) << r.all();
}

TEST_P(PulseOf4, a_rank_that_is_slow_but_gets_on_is_no_alarm) {
  const Launched r = launch(GetParam(), 4, {RETORT_PULSE_PROGRAM, "slow", "3", "2"});
  EXPECT_EQ(r.status, 0) << r.all();
  EXPECT_EQ(count(r.said, "ends after step 12"), 4) << r.all();
}

TEST_P(PulseOf4, ranks_that_all_slept_do_not_miss_each_other) {
  const Launched r = launch(GetParam(), 4, {RETORT_PULSE_PROGRAM, "sleep", "0", "2"});
  EXPECT_EQ(r.status, 0) << r.all();
  EXPECT_EQ(count(r.said, "ends after step 12"), 4) << r.all();
}

TEST_P(PulseOf4, an_error_of_one_rank_ends_all_and_is_told) {
  for (const int bad : {0, 3}) {
    const Launched r = run("throw", bad);
    EXPECT_NE(r.status, 0);
    EXPECT_EQ(count(r.said, join("error of rank ", bad, ": the disk is full")), 1) << r.all();
    EXPECT_THAT(r.said, Not(HasSubstr("ends after")));
  }
}

TEST_P(PulseOf4, a_signal_to_one_rank_stops_all_after_the_same_step) {
  const Launched r = run("ask", 2);
  EXPECT_EQ(r.status, 0) << r.all();
  EXPECT_EQ(count(r.said, "ends after step 6"), 4) << r.all();
}

TEST_P(PulseOf4, ranks_that_make_different_calls_are_found_with_the_next_word) {
  const Launched r = run("calls", 3);
  EXPECT_NE(r.status, 0);
  EXPECT_THAT(r.said, ContainsRegex(
                          "error of rank [0-3]: (\\[gather\\] )?ranks made different calls: rank 3 "
                          "\\(.*\\): a transfer, gather of 8 bytes, an agreement; rank 0 "
                          "\\(.*\\) and 2 more: gather of 8 bytes, an agreement"));
}

// As a leaf, a branch and the root of the tree that words go along.
TEST_P(PulseOf4, a_rank_that_leaves_out_an_agreement_is_named_by_the_next_one) {
  for (const int bad : {3, 2, 0}) {
    const Launched r = run("skip", bad);
    EXPECT_NE(r.status, 0);
    EXPECT_THAT(r.said,
                ContainsRegex(join("error of rank [0-3]: (\\[gather\\] )?ranks made different "
                                   "calls: rank ",
                                   bad, " \\(.*\\): gather of 8 bytes x 2, an agreement; rank ",
                                   bad == 0 ? 1 : 0,
                                   " \\(.*\\) and 2 more: gather of 8 bytes, an agreement")))
        << r.all();
    EXPECT_THAT(r.said, Not(ContainsRegex("was not heard|has not moved|ends after")));
  }
}

TEST_P(PulseOf4, the_last_agreement_that_a_rank_leaves_out_is_found_at_the_end) {
  const Launched r = run("skip_last", 1);
  EXPECT_NE(r.status, 0);
  EXPECT_THAT(r.said,
              ContainsRegex("ranks made different calls: rank 1 \\(.*\\): gather of 8 bytes, "
                            "the last agreement, an agreement; rank 0 "))
      << r.all();
  EXPECT_THAT(r.said, Not(ContainsRegex("was not heard|has not moved|ends after")));
}

TEST_P(PulseOf4, a_program_without_a_handler_gets_an_error_from_what_it_waits_for) {
  const Launched r = run("embed", 1);
  EXPECT_NE(r.status, 0);
  EXPECT_THAT(r.said,
              ContainsRegex("error of rank [023]: \\[gather\\] rank 1 \\(.*\\) has not moved "
                            "for [0-9.]+ s; its last word was of step 5; it was waited for "
                            "in a gather"));
}

TEST(Pulse, one_rank_needs_none) {
  Communicator& ranks = Communicator::world();
  Pulse pulse(ranks, {});
  Pulse::set_step(3);
  pulse.stop();
  Agreement agreement(ranks);
  EXPECT_THAT(error_of([&] { agreement.finish(); }, ErrorCode::kUsage), HasSubstr("begin()"));
  agreement.begin({15, 2, 7});
  EXPECT_THAT(error_of([&] { agreement.begin({}); }, ErrorCode::kUsage), HasSubstr("finish()"));
  const Agreement::Word word = agreement.finish();
  EXPECT_EQ(word.signal, 15);
  EXPECT_EQ(word.error, 2);
  EXPECT_EQ(word.step, 7);
}

}  // namespace
}  // namespace retort::test
