// Language through the program: corpora, masked LM with a teacher, curricula by scores of texts, the
// losses' names, tasks that go from texts to questions. Small transformers, a handful of steps each.
#include <algorithm>
#include <cstring>
#include <regex>

#include "tests/tools/table_fixture.h"

namespace retort::tools {
namespace {

class KdtrainText : public KdtrainTable {
 protected:
  void SetUp() override {
    KdtrainTable::SetUp();
    std::string vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n.\n?\nyes\nno\n";
    for (int w = 0; w < 30; ++w) vocab += "w" + std::to_string(w) + "\n";
    write("data/vocab.txt", vocab);
    write("data/train.txt", texts(40, 1));
    write("data/test.txt", texts(12, 2));
  }

  // A text of 3 to 9 words, each two above the one before: easy to learn a little of.
  static std::string text(int i, std::uint32_t seed) {
    const Philox4 r = philox(seed, static_cast<std::uint32_t>(i), 0, 0, 0);
    std::string line;
    for (std::uint32_t w = 0; w < 3 + r.v[0] % 7; ++w)
      line += "w" + std::to_string((r.v[1] + 2 * w) % 30) + " ";
    return line + ".";
  }
  static std::string texts(int count, std::uint32_t seed) {
    std::string all;
    for (int i = 0; i < count; ++i) all += text(i, seed) + "\n";
    return all;
  }

  std::string recipe(const std::string& rest) const {
    return write("text.toml", R"(
name = "text"
[data]
format = "text"
root = "data"
vocab = "vocab.txt"
case = "cased"
cache = "cache"
train_files = ["train.txt"]
test_files = ["test.txt"]
[teacher]
arch = "bert"
layers = 2
hidden_size = 16
heads = 2
intermediate = 32
allow_untrained = true
train = { epochs = 1, batch = 8, lr = 1e-3, optimizer = "adamw" }
[student]
arch = "bert"
layers = 1
hidden_size = 8
heads = 1
intermediate = 16
[distill]
temperature = 2.0
[train]
epochs = 1
batch = 8
lr = 1e-3
optimizer = "adamw"
log_steps = 1
)" + rest);
  }
};

// Cut by rows: 8 texts in slices of 2, 3 and 3; some batches of tokens have fewer texts than slices.
TEST_F(KdtrainText, slices_of_texts_give_the_losses_of_the_whole) {
  const std::string triple = "distill.loss = \"distilbert_triple\"\n",
                    tokens = triple + "train.batch_tokens = 30\n";
  recipe(arm("whole", triple) + arm("cut", triple + "train.slices = 3") + arm("tokens", tokens) +
         arm("cut_tokens", tokens + "train.slices = 6\ntrain.micro_batch = 1"));
  run_into("x", {"text.toml"});
  for (const auto& [one, other] : {std::pair{"whole", "cut"}, {"tokens", "cut_tokens"}}) {
    const auto want = lines_of("x", one), got = lines_of("x", other);
    ASSERT_EQ(got.size(), want.size()) << other;
    for (std::size_t i = 0; i < want.size(); ++i)
      for (const char* key : {"loss", "loss_ce", "loss_kd", "loss_cos"})
        EXPECT_NEAR(got[i].at(key).as_number(), want[i].at(key).as_number(), 2e-4)
            << other << " " << key << i;
    EXPECT_NE(values(weights("x", other)), values(weights("x", one)));  // summed in another order
  }
}

TEST_F(KdtrainText, masked_words_are_distilled_under_both_losses) {
  recipe(arm("alone", "distill.lambda = 0.0") + arm("kd", "distill.lambda = 0.25") +
         arm("triple", "distill.loss = \"distilbert_triple\""));
  run_into("x", {"text.toml"});
  const auto alone = lines_of("x", "alone"), kd = lines_of("x", "kd"),
             triple = lines_of("x", "triple");
  ASSERT_EQ(alone.size(), 5u);
  ASSERT_EQ(kd.size(), 5u);
  for (const Json& line : alone) EXPECT_EQ(line.find("loss_kd"), nullptr);
  const auto number = [](const Json& line, const char* key) { return line.at(key).as_number(); };
  for (const Json& line : kd)
    EXPECT_NEAR(number(line, "loss"),
                0.75 * number(line, "loss_ce") + 0.25 * number(line, "loss_kd"), 1e-4);
  ASSERT_EQ(triple.size(), 5u);
  for (const Json& line : triple) {
    EXPECT_NEAR(
        number(line, "loss"),
        2 * number(line, "loss_ce") + 5 * number(line, "loss_kd") + number(line, "loss_cos"), 1e-3);
    EXPECT_GT(number(line, "loss_cos"), 0.1);
  }
  // The first step of all arms has the same masks and the same student.
  EXPECT_NEAR(number(alone[0], "loss_ce"), number(triple[0], "loss_ce"), 1e-5);
  // Rows are predicted positions: at least one a text.
  const auto test = lines_of("x", "kd", "test");
  ASSERT_FALSE(test.empty());
  EXPECT_NEAR(number(test.back(), "loss"), std::log(39.0), 1.0);
}

// Passes over texts are the same whatever is made ready at once, in both precisions.
TEST_F(KdtrainText, evaluation_does_not_depend_on_how_it_is_cut) {
  write("data/test.txt", texts(80, 2));
  recipe("[curriculum]\nmaskings = 2\n" + arm("kd") +
         arm("sr",
             "train.order = \"curriculum\"\ncurriculum.score = \"loss\"\n"
             "distill.reliance.mode = \"minmax\"") +
         arm("narrow", "train.precision = \"bf16\""));
  run_into("whole", {"text.toml", "teacher.precision=bf16"});
  const std::string want = content(folder_ / "whole");
  for (const auto& [batch, cache, threads] :
       {std::tuple{"1", "off", "1"}, {"7", "on", "2"}, {"64", "off", "2"}}) {
    const std::string out = std::string("cut") + batch;
    run_into(out,
             {"text.toml", "teacher.precision=bf16", std::string("train.evaluate_batch=") + batch,
              std::string("teacher.cache=") + cache, "--threads", threads});
    EXPECT_EQ(content(folder_ / out), want) << batch;
  }
}

// What a teacher says of a sentence does not depend on who asked first, nor on whether it is kept.
TEST_F(KdtrainText, answers_about_sentences_are_kept) {
  for (const auto& [file, count, seed] : {std::tuple{"train", 44, 4u}, {"test", 20, 5u}}) {
    std::string rows = "sentence\tlabel\n";
    for (int i = 0; i < count; ++i) rows += text(i, seed) + "\t" + std::to_string(i % 2) + "\n";
    write(std::string("data/") + file + ".tsv", rows);
  }
  recipe(arm("kd") + arm("parts", "train.micro_batch = 3") + arm("slices", "train.slices = 2") +
         arm("sr",
             "train.order = \"curriculum\"\ncurriculum.score = \"loss\"\n"
             "distill.reliance.mode = \"minmax\""));
  for (const char* precision : {"f32", "bf16"}) {
    const std::vector<std::string> args{"text.toml",
                                        "train.epochs=2",
                                        "data.format=tsv",
                                        "data.task=classification",
                                        "data.train_files=train.tsv",
                                        "data.test_files=test.tsv",
                                        std::string("teacher.precision=") + precision};
    for (const char* out : {"whole", "cut1", "cut2"}) fs::remove_all(folder_ / out);
    run_into("whole", args);
    const std::string want = content(folder_ / "whole");
    const std::vector<std::string> cuts[] = {{"teacher.cache=off", "--threads", "1"},
                                             {"train.jobs=1", "--threads", "2"}};
    int k = 0;
    for (const auto& cut : cuts) {
      std::vector<std::string> all = args;
      all.insert(all.end(), cut.begin(), cut.end());
      const std::string out = "cut" + std::to_string(++k);
      run_into(out, all);
      EXPECT_EQ(content(folder_ / out), want) << precision << " " << cut[0];
    }
  }
}

// Of words the teacher's features are kept: arms of one seed see the same masks, and only the first of
// them asks the teacher. How much is kept changes no byte.
TEST_F(KdtrainText, features_of_masked_words_are_kept) {
  recipe(arm("kd") + arm("parts", "train.micro_batch = 3") + arm("slices", "train.slices = 2") +
         arm("chunks", "distill.logits_memory = 1"));
  for (const char* precision : {"f32", "bf16"}) {
    const std::vector<std::string> args{"text.toml", "train.epochs=2",
                                        std::string("teacher.precision=") + precision};
    const auto run_with = [&](const std::string& out, const std::vector<std::string>& more) {
      fs::remove_all(folder_ / out);
      std::vector<std::string> all = args;
      all.insert(all.end(), more.begin(), more.end());
      return run_into(out, all).err;
    };
    const auto asked = [](const std::string& told) {
      std::smatch m;
      EXPECT_TRUE(std::regex_search(
          told, m, std::regex("teachers' features: ([0-9]+) words computed, ([0-9]+) kept")))
          << told;
      return std::pair(std::stol(m[1]), std::stol(m[2]));
    };
    const auto [computed, kept] = asked(run_with("whole", {"train.jobs=1"}));
    EXPECT_GT(computed, 0);
    EXPECT_EQ(kept, 3 * computed);  // four arms
    const std::string want = content(folder_ / "whole");
    const auto off = asked(run_with("off", {"teacher.cache=off", "--threads", "2"}));
    EXPECT_EQ(off, std::pair(4 * computed, 0L));
    EXPECT_EQ(content(folder_ / "off"), want) << precision;
    run_with("little", {"teacher.cache=on", "teacher.cache_mib=1", "--threads", "1"});
    EXPECT_EQ(content(folder_ / "little"), want) << precision;
    // One arm draws new masks in each epoch: nobody asks again.
    const auto alone = asked(run_with("alone", {"arms=[\"kd\"]", "train.jobs=1"}));
    EXPECT_EQ(alone, std::pair(computed, 0L));
  }
}

// TinyBERT's and CompactBioBERT's terms by their keys; what does not fit is told before a teacher trains.
TEST_F(KdtrainText, attention_maps_are_distilled) {
  const std::string two = "student.hidden_size = 8\nstudent.heads = 2\n";
  const std::string file =
      recipe(arm("kd", two) + arm("kl", two + "distill.attention.weight = 3.0") +
             arm("scores", two + "distill.attention = { weight = 1.0, distance = \"scores\" }\n" +
                               "distill.hidden_mse.weight = 1.0\ntrain.micro_batch = 3") +
             arm("compact", two + "distill.attention.weight = 3.0\n"
                                  "distill.cosine = { weight = 3.0, over = \"layers\" }"));
  run_into("x", {"text.toml"});
  const auto number = [](const Json& line, const char* key) { return line.at(key).as_number(); };
  for (const Json& line : lines_of("x", "kl"))
    EXPECT_NEAR(number(line, "loss"),
                0.5 * (number(line, "loss_ce") + number(line, "loss_kd")) +
                    3 * number(line, "loss_attention"),
                1e-4);
  for (const Json& line : lines_of("x", "scores"))
    EXPECT_NEAR(number(line, "loss"),
                0.5 * (number(line, "loss_ce") + number(line, "loss_kd")) +
                    number(line, "loss_attention") + number(line, "loss_hidden"),
                1e-4);
  for (const Json& line : lines_of("x", "compact"))
    EXPECT_NEAR(number(line, "loss"),
                0.5 * (number(line, "loss_ce") + number(line, "loss_kd")) +
                    3 * (number(line, "loss_attention") + number(line, "loss_cos")),
                1e-4);
  EXPECT_GT(number(lines_of("x", "compact")[0], "loss_cos"), 0);
  EXPECT_GT(number(lines_of("x", "kl")[0], "loss_attention"), 0);
  EXPECT_NE(values(weights("x", "kl")), values(weights("x", "kd")));
  const auto refused = [&](std::vector<std::string> words, const std::string& why) {
    std::vector<std::string> all{"validate", file};
    all.insert(all.end(), words.begin(), words.end());
    expect(all, 2, why);
  };
  refused({"arm.kl.student.heads=4"}, "got 4 in the student and 2 in the teacher");
  refused({"arm.kl.distill.attention.layers=3"}, "layer 3 of a student with 1 hidden layers");
  refused({"arm.scores.distill.hidden_mse.layers=2"}, "layer 2 of a student with 1 hidden layers");
  refused({"arm.compact.distill.cosine.layers=2"}, "layer 2 of a student with 1 hidden layers");
  refused({"arm.compact.distill.cosine.layers=1", "arm.compact.distill.cosine.over=positions"},
          "is read with over = \"layers\" only");
}

// From the same weights: rounding alone parts them at first, and the master weights stay f32.
TEST_F(KdtrainText, transformers_train_in_bf16) {
  recipe("[curriculum]\nscorer = \"student\"\nscore = \"loss\"\n" +
         arm("kd", "train.order = \"curriculum\"") +
         arm("triple", "distill.loss = \"distilbert_triple\""));
  run_into("f32", {"text.toml", "train.epochs=2"});
  run_into("bf16",
           {"text.toml", "train.epochs=2", "train.precision=bf16", "teacher.precision=bf16"});
  for (const char* name : {"kd", "triple"}) {
    EXPECT_NE(values(weights("bf16", name)), values(weights("f32", name)));
    const auto wide = lines_of("f32", name), narrow = lines_of("bf16", name);
    ASSERT_EQ(narrow.size(), wide.size());
    ASSERT_EQ(wide.size(), 10u);
    for (std::size_t i = 0; i < wide.size(); ++i)
      for (const char* key : {"loss", "loss_ce", "loss_kd", "loss_cos"}) {
        const Json* const of = wide[i].find(key);
        if (of == nullptr) continue;
        EXPECT_NEAR(narrow[i].at(key).as_number() / of->as_number(), 1, 0.03)
            << name << " " << key << i;
      }
  }
  const SafetensorsReader reader(weights("bf16", "kd"));
  for (const SafetensorsEntry& entry : reader.header().entries)
    EXPECT_EQ(entry.dtype, DType::kF32) << entry.name;
  // `eval` reads the precision from the file: the loss that the run logged.
  const double logged = lines_of("bf16", "kd", "test").back().at("loss").as_number();
  const Result r =
      run({"eval", "--model", path("bf16/arms/kd/seed1"), "--arch", "bert", "data.format=text",
           "data.root=data", "data.test_files=test.txt", "data.cache=cache", "data.vocab=vocab.txt",
           "data.case=cased", "data.task=masked_lm", "--device", "cpu"});
  ASSERT_EQ(r.status, 0) << r.err;
  EXPECT_EQ(Json::parse(r.out, "eval").at("loss").as_number(), logged) << r.out;
}

TEST_F(KdtrainText, texts_are_fed_in_the_order_of_their_scores) {
  recipe("[curriculum]\nmaskings = 2\n" +
         arm("by_length",
             "train.order = \"curriculum\"\ncurriculum = { scorer = \"data\", score = "
             "\"text_length\" }\ndistill.lambda = 0.0") +
         arm("by_student",
             "train.order = \"curriculum\"\ncurriculum = { scorer = \"student\", "
             "score = \"loss\" }\ndistill.reliance.mode = \"minmax\"") +
         arm("by_teacher",
             "train.order = \"curriculum\"\ncurriculum = { score = \"loss\", "
             "inverse = \"reverse_exact\" }"));
  run_into("x", {"text.toml"});
  std::map<std::string, std::string> files;  // by what its name contains
  for (const auto& entry : fs::directory_iterator(folder_ / "x/curriculum")) {
    const std::string name = entry.path().filename().string();
    for (const char* part : {"text_length", "student", "reverse"})
      if (name.find(part) != std::string::npos) files[part] = "x/curriculum/" + name;
  }
  ASSERT_EQ(files.size(), 3u);
  const auto length = column(files["text_length"], 3), index = column(files["text_length"], 1);
  ASSERT_EQ(length.size(), 40u);
  EXPECT_TRUE(std::is_sorted(length.begin(), length.end()));
  for (std::size_t r = 0; r < length.size(); ++r) {
    const std::string line = text(static_cast<int>(index[r]), 1);
    EXPECT_EQ(length[r], 1 + std::count(line.begin(), line.end(), ' '));  // words, and the mark
  }
  const auto easy = column(files["student"], 3), hard = column(files["reverse"], 3);
  EXPECT_TRUE(std::is_sorted(easy.begin(), easy.end()));
  EXPECT_TRUE(std::is_sorted(hard.rbegin(), hard.rend()));
  EXPECT_NE(easy.front(), easy.back());
  // Low loss is easy: lambda grows over an epoch.
  const auto lambda = logged("x", "by_student", "lambda");
  ASSERT_EQ(lambda.size(), 5u);
  EXPECT_TRUE(std::is_sorted(lambda.begin(), lambda.end()));
  EXPECT_EQ(lambda.front(), 0);
  EXPECT_EQ(lambda.back(), 1);
}

// The pseudo-log-likelihood: with more maskings than tokens each word stands alone. By hand: a file
// in which every text stands once for each of its words, that word masked.
TEST_F(KdtrainText, in_turn_every_word_is_masked_once) {
  recipe(arm("pll",
             "train.order = \"curriculum\"\ndistill.lambda = 0.0\ntrain.lr = 0.0\n"
             "curriculum = { scorer = \"student\", score = \"loss\", masks = \"in_turn\", maskings "
             "= 16 }"));
  run_into("x", {"text.toml"});
  std::string each;
  std::vector<int> words;
  for (int i = 0; i < 40; ++i) {
    std::vector<int> ids{2};
    std::istringstream line(text(i, 1));
    for (std::string word; line >> word;)
      ids.push_back(word == "." ? 5 : 9 + std::stoi(word.substr(1)));
    ids.push_back(3);
    words.push_back(static_cast<int>(ids.size()) - 2);
    for (std::size_t p = 1; p + 1 < ids.size(); ++p) {
      std::string input, labels;
      for (std::size_t k = 0; k < ids.size(); ++k) {
        input += (k == 0 ? "" : ",") + std::to_string(k == p ? 4 : ids[k]);
        labels += (k == 0 ? "" : ",") + std::to_string(k == p ? ids[k] : -100);
      }
      each += "{\"input_ids\": [" + input + "], \"labels\": [" + labels + "]}\n";
    }
  }
  write("data/each.jsonl", each);
  const Result r =
      run({"eval", "--model", path("x/arms/pll/seed1"), "--arch", "bert", "data.format=tokens",
           "data.root=data", "data.test_files=each.jsonl", "data.ids=39", "data.classes=39",
           "--logits", "logits.bin", "--device", "cpu"});
  ASSERT_EQ(r.status, 0) << r.err;
  const std::string bytes = read(folder_ / "logits.bin");
  constexpr std::size_t kVocabulary = 39;
  std::vector<float> z(bytes.size() / sizeof(float));
  std::memcpy(z.data(), bytes.data(), bytes.size());
  std::string file;
  for (const auto& entry : fs::directory_iterator(folder_ / "x/curriculum"))
    if (entry.path().extension() == ".csv")
      file = "x/curriculum/" + entry.path().filename().string();
  const auto order = column(file, 1), score = column(file, 3);
  ASSERT_EQ(order.size(), 40u);
  std::vector<double> wanted;
  std::size_t row = 0;
  for (int i = 0; i < 40; ++i) {
    std::istringstream line(text(i, 1));
    double sum = 0;
    for (std::string word; line >> word; ++row) {
      const std::size_t id = word == "." ? 5 : 9 + std::stoul(word.substr(1));
      ASSERT_LE((row + 1) * kVocabulary, z.size());
      double total = 0;
      for (std::size_t v = 0; v < kVocabulary; ++v)
        total += std::exp(static_cast<double>(z[row * kVocabulary + v]));
      sum += std::log(total) - static_cast<double>(z[row * kVocabulary + id]);
    }
    wanted.push_back(sum / words[static_cast<std::size_t>(i)]);
  }
  for (std::size_t r = 0; r < 40; ++r)
    EXPECT_NEAR(score[r], wanted[static_cast<std::size_t>(order[r])], 1e-5) << r;
  // Scored by one teacher, arms mask alike.
  recipe(
      arm("a",
          "train.order = \"curriculum\"\ncurriculum = { score = \"loss\", masks = \"in_turn\" }") +
      arm("b", "train.order = \"curriculum\"\ncurriculum.score = \"loss\""));
  expect({"run", "text.toml", "--device", "cpu", "--out", "y"}, 2, "scores for several");
}

TEST_F(KdtrainText, steps_of_tokens_and_runs_that_are_resumed_give_the_same_bytes) {
  recipe(arm("a", "train = { batch_tokens = 50, epochs = 2 }\ndistill.lambda = 0.0"));
  run_into("x", {"text.toml"});
  std::size_t tokens = 0;
  for (int i = 0; i < 40; ++i) {
    const std::string line = text(i, 1);
    tokens += 3 + static_cast<std::size_t>(std::count(line.begin(), line.end(), ' '));
  }
  EXPECT_EQ(lines_of("x", "a").size(), 2 * ((tokens + 49) / 50));
  // Stopped after the first epoch and resumed.
  interrupted({"run", "text.toml", "train.checkpoint_steps=1", "--device", "cpu", "--out", "y"}, 3,
              SIGTERM);
  const Result r = run({"run", "text.toml", "train.checkpoint_steps=1", "--device", "cpu", "--out",
                        "y", "--resume"});
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_EQ(read(weights("x", "a")), read(weights("y", "a")));
}

TEST_F(KdtrainText, pre_training_goes_on_to_questions) {
  std::string questions = "[";
  for (int q = 0; q < 24; ++q)
    questions += std::string(q == 0 ? "" : ",") + "{\"question\": \"w" + std::to_string(q) +
                 " ?\", \"answer\": \"" + (q % 2 == 0 ? "yes" : "no") +
                 "\", \"snippets\": [{\"text\": \"" + text(q, 3) + "\"}, {\"text\": \"" +
                 (q % 2 == 0 ? "yes" : "no") + " .\"}]}";
  write("data/questions.json", questions + "]");
  recipe(R"([[task]]
name = "pretrain"
[[task]]
name = "finetune"
data.format = "bioasq"
data.task = "classification"
data.train_files = ["questions.json"]
data.test_files = []
data.split = "grouped"
data.rows = "snippet"
distill.lambda = 0.0
train.epochs = 2
train.batch = 4
)" + arm("alone", "distill.lambda = 0.0") +
         arm("half",
             "student = { layers = 1, hidden_size = 16, heads = 2, intermediate = 32, init "
             "= \"teacher\" }"));
  run_into("x", {"text.toml"});
  for (const char* who : {"alone", "half"}) {
    std::vector<Json> finals;
    for (const char* split : {"final"})
      for (Json& line : lines_of("x", who, split)) finals.push_back(std::move(line));
    ASSERT_EQ(finals.size(), 2u) << who;
    EXPECT_EQ(finals[1].at("task").as_string(), "finetune");
    EXPECT_GE(finals[1].at("test.accuracy").as_number(), 0);
    EXPECT_NE(finals[1].find("validation.accuracy"), nullptr);
    // The encoder went from one task to the next.
    const std::string folder = path(std::string("x/arms/") + who + "/seed1/");
    EXPECT_TRUE(fs::exists(folder + "pretrain/config.json"));
    EXPECT_TRUE(fs::exists(folder + "finetune/config.json"));
  }
  // What is logged does not hang on where the folder lies.
  EXPECT_THAT(read(folder_ / "x/metrics.jsonl"), HasSubstr("as arms/alone/seed1/pretrain"));
}

TEST_F(KdtrainText, a_folder_that_a_teacher_starts_from_is_known_by_its_content) {
  recipe(arm("kd", "distill.lambda = 0.25"));
  run_into("first", {"text.toml"});
  const auto copy_of_teacher = [&](const char* name) {
    fs::copy(path("first/arms/teacher/seed1"), path(name));
    return std::string("teacher.train.weights=") + name;
  };
  run_into("x", {"text.toml", copy_of_teacher("one")});
  const std::string same = copy_of_teacher("two"), other = copy_of_teacher("three");
  std::ofstream(path("three/config.json"), std::ios::app) << "\n";
  const auto resumed = [&](const std::string& key, int status) {
    expect({"run", "text.toml", key, "--out", "x", "--resume"}, status, "teacher.train.weights");
  };
  resumed(same, 0);
  resumed(other, 2);
  std::ofstream(path("two/config.json"), std::ios::app) << "\n";
  resumed(same, 2);  // the name is the same
}

TEST_F(KdtrainText, mistakes_of_recipes_for_texts_are_told) {
  recipe(arm("a"));
  const auto says = [&](std::vector<std::string> more, const std::string& what) {
    more.insert(more.begin(), {"validate", "text.toml"});
    expect(more, 2, what);
  };
  says({"data.case=unset"}, "data.case: expected cased or uncased");
  says({"student.arch=mlp"}, "arch mlp reads features, data text gives tokens");
  says({"train.order=curriculum", "curriculum.score=text_length"},
       "no model is asked for text_length");
  says({"train.order=curriculum", "curriculum.scorer=data"},
       "\"data\" needs a score that no model is asked for");
  says({"distill.loss=distilbert_triple", "distill.cutoff=0.5"}, "shares of its own");
  says({"distill.loss=distilbert_triple", "distill.cosine.weight=1"}, "cosine.weight: distilbert");
  says({"train.batch_tokens=100", "train.window_shuffle=2", "train.order=sequential"},
       "counted in batches of samples");
  expect({"run", "text.toml", "data.train_files=bad.txt", "--out", "x"}, 4, "no file bad.txt");
  write("data/bad.txt", "fine\n\xff\n");
  expect({"run", "text.toml", "data.train_files=bad.txt", "--out", "x"}, 3,
         "bad.txt:2: byte 6 of the file: expected UTF-8");
}

}  // namespace
}  // namespace retort::tools
