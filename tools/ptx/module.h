// PTX as data: what parse() makes of a text and lower() of a kernel.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace retort::ptx {
using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i16 = std::int16_t;
using i32 = std::int32_t;
using i64 = std::int64_t;

/// What a text or a kernel does that the ISA forbids, or that this interpreter cannot do.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// ------------------------------------------------------------------------------------ parsed text

enum class Width : u8 { kPredicate, k32, k64 };  // 16-bit registers live in 32-bit lanes
struct Register {
  std::string name, type;
  Width width;
  u32 slot;  // of 32-bit lanes from the start of a warp's file; of predicates: their number
};
struct Operand {
  enum Kind : u8 { kNone, kRegister, kImmediate, kSymbol, kVector, kAddress, kSink };
  Kind kind = kNone;
  int index = -1;        // register; of an address: base, or -1
  int second = -1;       // d|p
  bool negated = false;  // !p
  std::string text;      // immediate or symbol
  i64 offset = 0;        // address
  std::vector<Operand> list;
};
/// A line of the CUDA source, as -lineinfo names it; 0 where nothing does.
struct Place {
  u32 file = 0;  // of Module::files
  u32 line = 0;
};
/// Where an instruction comes from: its own line, and where that was inlined.
struct Source {
  Place at, inlined_at;
};
struct Statement {
  std::vector<std::string> op;  // opcode and modifiers
  std::vector<Operand> args;
  int guard = -1;
  bool guard_not = false;
  u32 line = 0;
  Source source;
  std::vector<int> scopes;  // for branch targets
};
struct Variable {
  std::string name;
  u32 offset = 0, size = 0, align = 1;
};

// ----------------------------------------------------------------------------------- instructions

struct Warp;
struct Inst;
/// Executes an instruction for the lanes of `mask`.
using Handler = void (*)(Warp& warp, const Inst& inst, u32 mask);
enum class Flow : u8 {
  kPlain,
  kBranch,
  kExit,
  kCollective,
  kWarpGroup,  // by the four warps of a group
  kBarrier,
  kClusterArrive,
  kClusterWait,
  kPoll
};
/// An instruction, ready to run. Letters are slots of operands; flags, count and target mean what
/// the handler takes them for.
struct Inst {
  Handler fn = nullptr;
  u32 d = 0, a = 0, b = 0, c = 0, e = 0;
  int guard = -1;
  bool guard_not = false;
  Flow flow = Flow::kPlain;
  bool aligned = false;  // collective: by all threads of the warp
  u8 space = 0, size = 0, count = 1;
  u8 base = 0;  // of an address: 0 none, 1 a 32-bit register, 2 a 64-bit one
  bool flag = false, flag2 = false;
  u32 target = 0;
  i64 offset = 0;
  u32 list = 0, list_size = 0;  // in Function::lists
  u32 line = 0;
};
/// What an instruction does, for reports.
enum class Class : u8 {
  kInteger,
  kF32,
  kF64,
  kHalf,  // f16, bf16
  kConvert,
  kSpecial,  // of the special function unit, and divisions
  kMatrix,
  kChoose,  // comparisons and selections
  kMove,
  kBranch,
  kBarrier,   // barriers, fences and waits
  kExchange,  // between the lanes of a warp
  kGlobalLoad,
  kGlobalStore,
  kSharedLoad,
  kSharedStore,
  kCopy,  // asynchronous ones
  kAtomic,
  kLocal,
  kParam,
};
inline constexpr u32 kClasses = static_cast<u32>(Class::kParam) + 1;
/// Of one instruction: what its accesses cost, and what they would cost at best.
struct Traffic {
  u64 requests = 0;  // by warps
  u64 units = 0;     // 32-byte sectors of global memory, passes over the banks of shared memory
  u64 least = 0;
};
struct Function {
  std::string name;
  std::vector<Variable> params, shared, local;
  bool dynamic_shared = false;
  u32 dynamic_align = 16;
  std::vector<Register> registers;
  std::vector<Statement> statements;
  std::map<std::pair<int, std::string>, u32> labels;  // by scope
  u32 max_threads = 1024;
  // Lowered:
  bool lowered = false;
  std::vector<Inst> code;
  std::vector<u32> lists;
  std::vector<u8> list_wide;                         // of each entry of lists: a 64-bit slot
  u32 slots = 0, predicates = 0;                     // 32-bit lanes; masks
  u32 register_slots = 0;                            // the first of them: registers of the text
  std::map<std::pair<u64, bool>, u32> constants;     // value, 64-bit -> slot
  std::map<std::string, u32> specials;               // %tid.x -> slot
  std::map<std::pair<u32, bool>, u32> shared_names;  // address in the block, 64-bit -> slot
  u32 shared_size = 0, local_size = 0, param_size = 0;
  std::vector<Source> sources;   // by instruction
  std::vector<Class> classes;    // by instruction
  std::vector<u64> executed;     // by instruction: warps
  std::vector<Traffic> traffic;  // by instruction
  u64 launches = 0, blocks = 0, lane_instructions = 0;
};
struct Module {
  std::string target;
  std::vector<std::string> lines;
  std::map<u32, std::string> files;  // of the CUDA source, where -lineinfo names them
  std::map<std::string, std::unique_ptr<Function>> functions;
  std::map<std::string, u64> globals;  // addresses of .global tables
  std::vector<std::unique_ptr<std::vector<u8>>> storage;

  Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;
  ~Module();
};

/// The kernels of a PTX text, as nvcc writes it. Throws Fault with the line of what it cannot take.
std::unique_ptr<Module> parse(const std::string& text);

/// Makes f.code of f.statements. With `fused`, products and sums that name no rounding are fused as
/// ptxas may fuse them. Throws Fault, naming line and text, for what is not implemented: an unknown
/// opcode, modifier or operand is never ignored.
void lower(Module& module, Function& f, bool fused);

/// Gives every register its slot; registers that are never wanted together share one.
void place_registers(Function& f);

/// What a statement does, by its opcode and modifiers.
Class class_of(const Statement& statement);

/// "kernels/axpy/axpy.cuh:31", with ", inlined at FILE:LINE" if it was; "" for an unknown place.
std::string describe(const Module& module, const Source& source);

/// mul with one reader, an add or sub in the same straight piece of code, becomes fma.
void fuse_products(Function& f);
}  // namespace retort::ptx
