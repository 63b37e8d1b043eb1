// TensorBoard's event files: published check values, our own decoder, and TensorBoard's reader where
// it is installed.
#include "tools/kdtrain/event_file.h"

#include <cmath>

#include "tests/tools/kdtrain_fixture.h"

namespace retort::tools {
namespace {

TEST(Events, published_check_values_of_crc32c) {
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);  // the catalogue's check value
  // RFC 3720, appendix B.4
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
}

TEST(Events, a_scalar_byte_by_byte) {
  // Written down by hand from Note [What an event file holds]: a tag of 4 letters.
  const EventScalar one{"loss", 0.5};
  const std::string record = event_record(1.0, 7, std::span(&one, 1));
  const std::string event(
      "\x09\x00\x00\x00\x00\x00\x00\xf0\x3f\x10\x07\x2a\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\x00"
      "\x3f",
      26);
  ASSERT_EQ(record.size(), 12 + event.size() + 4);
  EXPECT_EQ(record.substr(0, 8), std::string("\x1a\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(record.substr(12, event.size()), event);
}

TEST(Events, what_is_written_is_read_back) {
  const std::vector<EventScalar> scalars{{"train/loss", 0.25}, {"train/lr", 1e-3}, {"a", NAN}};
  const std::string bytes =
      first_event_record(5) + event_record(1e9 + 0.125, 300, scalars) + event_record(6, 0, {});
  const std::vector<Event> events = read_events(bytes);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].file_version, "brain.Event:2");
  EXPECT_EQ(events[0].wall_time, 5);
  EXPECT_EQ(events[1].wall_time, 1e9 + 0.125);
  EXPECT_EQ(events[1].step, 300);
  ASSERT_EQ(events[1].scalars.size(), 3u);
  EXPECT_EQ(events[1].scalars[0], scalars[0]);
  EXPECT_EQ(events[1].scalars[1].value, static_cast<double>(1e-3F));
  EXPECT_TRUE(std::isnan(events[1].scalars[2].value));
  EXPECT_TRUE(events[2].scalars.empty());
  EXPECT_TRUE(read_events("").empty());
}

TEST(Events, every_cut_and_every_flipped_bit_is_noticed) {
  const EventScalar one{"loss", 0.5};
  const std::string bytes = event_record(1.0, 7, std::span(&one, 1));
  for (std::size_t length = 1; length < bytes.size(); ++length)
    EXPECT_THROW(read_events(bytes.substr(0, length)), Error) << length;
  for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    std::string other = bytes;
    other[bit / 8] ^= static_cast<char>(1 << bit % 8);
    EXPECT_THROW(read_events(other), Error) << bit;
  }
}

class EventFiles : public Kdtrain {
 protected:
  std::vector<std::string> args(const std::string& out) const {
    return {"run", parity_recipe(), "seeds=1", "teacher.seeds=1",      "arms=one_shot", "--device",
            "cpu", "--threads",     "1",       "log.tensorboard=true", "--out",         out};
  }
  std::string file(const std::string& out, const std::string& arm) const {
    return path(out + "/arms/" + arm + "/seed1/events.out.tfevents.retort");
  }
  // (step, tag, value) of all events; times left out.
  static std::string content_of(const std::string& bytes) {
    std::ostringstream text;
    for (const Event& event : read_events(bytes))
      for (const EventScalar& s : event.scalars)
        if (s.tag.find("share_") == std::string::npos && s.tag.find("_s") == std::string::npos &&
            s.tag.find("memory") == std::string::npos)
          text << event.step << " " << s.tag << " " << s.value << "\n";
    return text.str();
  }
};

TEST_F(EventFiles, hold_the_numbers_of_the_log_and_go_on_after_a_signal) {
  ASSERT_EQ(run(args("whole")).status, 0);
  const std::string events = content_of(read(file("whole", "one_shot")));
  std::size_t lines = 0;
  std::istringstream log(read(folder_ / "whole/metrics.jsonl"));
  for (std::string text; std::getline(log, text);) {
    const Json line = Json::parse(text, "metrics.jsonl");
    if (line.at("arm").as_string() != "one_shot" || line.at("split").as_string() != "test")
      continue;
    ++lines;
    std::ostringstream want;
    want << line.at("step").as_integer() << " test/accuracy "
         << static_cast<double>(static_cast<float>(line.at("accuracy").as_number())) << "\n";
    EXPECT_THAT(events, HasSubstr(want.str()));
  }
  EXPECT_EQ(lines, 10u);
  EXPECT_THAT(events, HasSubstr(" train/loss "));
  EXPECT_THAT(content_of(read(file("whole", "teacher"))), HasSubstr(" test/accuracy "));

  const Result cut = interrupted(args("cut"), 20, SIGTERM);
  ASSERT_TRUE(cut.status == 143 || cut.status == 0) << cut.err;
  std::vector<std::string> again = args("cut");
  again.emplace_back("--resume");
  ASSERT_EQ(run(again).status, 0);
  EXPECT_EQ(content_of(read(file("cut", "one_shot"))), events);
}

TEST_F(EventFiles, tensorboards_own_reader_reads_them) {
  if (std::system("python3 -c 'import tensorboard' >/dev/null 2>&1") != 0)
    GTEST_SKIP() << "TensorBoard is not installed";
  ASSERT_EQ(run(args("x")).status, 0);
  const std::string script = write("read.py", R"(
import sys
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
for event in EventFileLoader(sys.argv[1]).Load():
    for value in event.summary.value:
        number = value.tensor.float_val[0] if value.HasField("tensor") else value.simple_value
        print(event.step, value.tag, "%.9g" % number)
)");
  const std::string out = path("read.txt");
  ASSERT_EQ(std::system(("python3 " + script + " " + file("x", "one_shot") + " > " + out).c_str()),
            0);
  std::ostringstream want;
  for (const Event& event : read_events(read(file("x", "one_shot"))))
    for (const EventScalar& s : event.scalars) {
      char number[40];
      std::snprintf(number, sizeof number, "%.9g", s.value);
      want << event.step << " " << s.tag << " " << number << "\n";
    }
  EXPECT_EQ(read(out), want.str());
}

}  // namespace
}  // namespace retort::tools
