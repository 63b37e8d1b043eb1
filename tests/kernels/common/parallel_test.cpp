#include "kernels/common/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/common/check.h"

namespace retort::test {
namespace {

struct Threads {  // for the length of a test
  explicit Threads(int n) : before(thread_count()) { set_thread_count(n); }
  ~Threads() { set_thread_count(before); }
  int before;
};

TEST(Parallel, chunks_cover_the_range_once_and_do_not_depend_on_the_threads) {
  std::set<std::pair<std::int64_t, std::int64_t>> reference;
  for (const int threads : {1, 2, 5}) {
    const Threads scope(threads);
    for (const std::int64_t n : {0, 1, 9, 10, 11, 1000}) {
      std::mutex mutex;
      std::set<std::pair<std::int64_t, std::int64_t>> chunks;
      std::vector<int> seen(static_cast<std::size_t>(n), 0);
      parallel_for(n, 10, [&](std::int64_t begin, std::int64_t end) {
        const std::lock_guard lock(mutex);
        chunks.emplace(begin, end);
        for (std::int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
      });
      for (const int count : seen) EXPECT_EQ(count, 1);
      if (n != 1000) continue;
      if (threads == 1) reference = chunks;
      EXPECT_EQ(chunks, reference);
      EXPECT_EQ(chunks.size(), 100u);
    }
  }
}

TEST(Parallel, the_error_of_the_lowest_chunk_is_the_one_thrown) {
  const Threads scope(4);
  std::atomic<int> ran{0};
  try {
    parallel_for(100, 10, [&](std::int64_t begin, std::int64_t) {
      ++ran;
      if (begin >= 30) fail(ErrorCode::kBadInput, "chunk ", begin);
    });
    FAIL() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "chunk 30");
    EXPECT_EQ(e.code(), ErrorCode::kBadInput);
  }
  EXPECT_EQ(ran, 10);  // the others ran to their end
}

TEST(Parallel, nested_calls_run_inline) {
  const Threads scope(4);
  std::atomic<int> total{0};
  EXPECT_FALSE(in_parallel());
  parallel_for(8, 1, [&](std::int64_t, std::int64_t) {
    EXPECT_TRUE(in_parallel());
    parallel_for(10, 1, [&](std::int64_t, std::int64_t) { ++total; });
  });
  EXPECT_FALSE(in_parallel());
  EXPECT_EQ(total, 80);
}

TEST(Parallel, thread_count_is_at_least_one) {
  const Threads scope(0);
  EXPECT_EQ(thread_count(), 1);
}

}  // namespace
}  // namespace retort::test
