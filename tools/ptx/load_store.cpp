// Loads, stores, atomics, and the conversions of their addresses.
#include <algorithm>
#include <type_traits>

#include "tools/ptx/instructions.h"

namespace retort::ptx {
namespace {
// Host addresses of a warp's accesses. Almost always one allocation holds all of a warp's global
// accesses.
void locate(Warp& w, const Inst& i, u32 m, u32 bytes, bool write, u8* (&p)[32]) {
  u64 at[32];
  u64 low = ~u64{0}, high = 0, any = 0;
  each(m, [&](u32 l) {
    const u64 a = at[l] = address_of(w, i, l);
    low = std::min(low, a), high = std::max(high, a), any |= a;
  });
  if (any & (bytes - 1))
    each(m, [&](u32 l) {
      if (at[l] & (bytes - 1))
        fail(w, l,
             "address " + hex(at[l]) + " is not aligned to " + std::to_string(bytes) + " bytes");
    });
  if (w.machine->options.traffic) count_traffic(w, i, static_cast<Space>(i.space), m, bytes, at);
  if (i.space == kGlobal) {
    const Allocation*& known =
        w.machine->cache[static_cast<std::size_t>(&i - w.machine->f->code.data())];
    if (!known) known = memory().find(low);
    if (known && low >= known->begin && high + bytes <= known->end) {
      each(m, [&](u32 l) { p[l] = known->host + (at[l] - known->begin); });
      if (w.machine->options.global)
        each(m, [&](u32 l) { note_global(w, l, at[l], bytes, write); });
      return;
    }
  }
  if (i.space == kShared) {  // almost always the block's own
    Block& block = *w.block;
    const u64 begin = (u64{block.rank} << 24) + kSharedBase;
    if (low >= begin && high + bytes <= begin + block.shared.size()) {
      u8* const data = block.shared.data();
      each(m, [&](u32 l) { p[l] = data + (at[l] - begin); });
      if (w.machine->options.checks)
        each(m, [&](u32 l) {
          note_shared(w, l, block, static_cast<u32>(at[l] - begin), bytes, write);
        });
      return;
    }
  }
  each(m, [&](u32 l) {
    p[l] = resolve(w, l, static_cast<Space>(i.space), at[l], bytes,
                   write ? Touch::kWrite : Touch::kRead);
  });
}

template <class T>
u64 extended(const u8* p, bool sign) {
  T v;
  std::memcpy(&v, p, sizeof v);
  if (sign) return static_cast<u64>(static_cast<i64>(static_cast<std::make_signed_t<T>>(v)));
  return v;
}
template <class T>
void load(Warp& w, const Inst& i, u32 m) {
  u8* p[32];
  locate(w, i, m, i.size * i.count, false, p);
  for (u32 k = 0; k < i.count; ++k) {
    const u32 slot = w.machine->f->lists[i.list + k];
    if (w.machine->f->list_wide[i.list + k])
      each(m, [&](u32 l) { put_wide(w, slot, l, extended<T>(p[l] + k * sizeof(T), i.flag)); });
    else
      each(m, [&](u32 l) {
        const u32 v = static_cast<u32>(extended<T>(p[l] + k * sizeof(T), i.flag));
        w.r[slot + l] = i.flag2 ? v & 0xffff : v;
      });
  }
}
template <class T>
void store(Warp& w, const Inst& i, u32 m) {
  u8* p[32];
  locate(w, i, m, i.size * i.count, true, p);
  for (u32 k = 0; k < i.count; ++k) {
    const u32 slot = w.machine->f->lists[i.list + k];
    const bool is_wide = w.machine->f->list_wide[i.list + k];
    each(m, [&](u32 l) {
      const T v = static_cast<T>(is_wide ? wide(w, slot, l) : w.r[slot + l]);
      std::memcpy(p[l] + k * sizeof(T), &v, sizeof v);
    });
  }
}
// Parameters are the same for all lanes.
template <class T>
void load_param(Warp& w, const Inst& i, u32 m) {
  if (i.base != 0) return load<T>(w, i, m);
  const u8* const p =
      resolve(w, 0, kParam, static_cast<u64>(i.offset), i.size * i.count, Touch::kRead);
  for (u32 k = 0; k < i.count; ++k) {
    const u32 slot = w.machine->f->lists[i.list + k];
    const u64 v = extended<T>(p + k * sizeof(T), i.flag);
    const bool is_wide = w.machine->f->list_wide[i.list + k];
    each(m, [&](u32 l) {
      if (is_wide)
        put_wide(w, slot, l, v);
      else
        w.r[slot + l] = i.flag2 ? static_cast<u32>(v) & 0xffff : static_cast<u32>(v);
    });
  }
}

enum class Atomic : u8 { add, min, max, conj, disj, excl, exch, cas, inc, dec };
template <class T>
void atomic(Warp& w, const Inst& i, u32 m) {
  each(m, [&](u32 l) {
    const u64 address = address_of(w, i, l);
    if (address & (sizeof(T) - 1)) fail(w, l, "address " + hex(address) + " is not aligned");
    u8* const p =
        resolve(w, l, static_cast<Space>(i.space), address, sizeof(T),
                static_cast<Atomic>(i.count) == Atomic::exch ? Touch::kExchange : Touch::kUpdate);
    w.block->counted = true;
    const auto read = [&](u32 slot) {
      const u64 v = sizeof(T) == 8 ? wide(w, slot, l) : w.r[slot + l];
      T t;
      std::memcpy(&t, &v, sizeof t);
      return t;
    };
    T old, now;
    std::memcpy(&old, p, sizeof old);
    const T b = read(i.b);
    switch (static_cast<Atomic>(i.count)) {
      case Atomic::add: now = static_cast<T>(old + b); break;
      case Atomic::min: now = std::min(old, b); break;
      case Atomic::max: now = std::max(old, b); break;
      case Atomic::exch: now = b; break;
      case Atomic::cas: now = old == b ? read(i.c) : old; break;
      default:
        if constexpr (std::is_integral_v<T>) {
          switch (static_cast<Atomic>(i.count)) {
            case Atomic::conj: now = old & b; break;
            case Atomic::disj: now = old | b; break;
            case Atomic::excl: now = old ^ b; break;
            case Atomic::inc: now = old >= b ? T{0} : static_cast<T>(old + 1); break;
            default: now = old == 0 || old > b ? b : static_cast<T>(old - 1);
          }
        } else
          now = old;
    }
    std::memcpy(p, &now, sizeof now);
    if (i.flag) return;  // red: no result
    u64 v = 0;
    std::memcpy(&v, &old, sizeof old);
    if (sizeof(T) == 8)
      put_wide(w, i.d, l, v);
    else
      w.r[i.d + l] = static_cast<u32>(v);
  });
}

}  // namespace

bool lower_load_store(Lowering& l, Inst& i) {
  const Statement& s = l.s;
  const std::string& op = s.op[0];
  const std::string full = l.full();
  const auto space_of = [&](const std::string& name) {
    return name == "global"                            ? kGlobal
           : name == "shared" || name == "shared::cta" ? kShared
           : name == "local"                           ? kLocal
           : name == "param"                           ? kParam
                                                       : kGeneric;
  };
  if (op == "ld" || op == "st") {
    i.space = kGeneric;
    i.count = 1;
    for (std::size_t k = 1; k + 1 < s.op.size(); ++k) {
      const std::string& m = s.op[k];
      if (space_of(m) != kGeneric)
        i.space = space_of(m);
      else if (m == "v2")
        i.count = 2;
      else if (m == "v4")
        i.count = 4;
      else if (m != "volatile" && m != "nc" && m != "relaxed" && m != "acquire" && m != "release" &&
               m != "gpu" && m != "sys" && m != "cta" && m != "cs" && m != "cg" && m != "ca")
        return false;
    }
    const std::string type = l.type();
    if (type.size() < 2) return false;
    const u32 bits = static_cast<u32>(std::stoul(type.substr(1)));
    if (bits != 8 && bits != 16 && bits != 32 && bits != 64) return false;
    i.size = static_cast<u8>(bits / 8);
    i.flag = type[0] == 's';
    const bool is_load = op == "ld";
    const Operand &values = s.args.at(is_load ? 0 : 1), &place = s.args.at(is_load ? 1 : 0);
    l.address(i, place);
    std::vector<const Operand*> parts;
    if (values.kind == Operand::kVector)
      for (const Operand& o : values.list) parts.push_back(&o);
    else
      parts.push_back(&values);
    if (parts.size() != i.count) l.refuse("a vector of another length");
    for (const Operand* o : parts)
      if (o->kind == Operand::kRegister && is_load) {
        const std::string& t = l.f.registers[static_cast<std::size_t>(o->index)].type;
        if (t.ends_with("16")) i.flag2 = true;  // keep the lane's upper half clear
      }
    l.list(i, parts, type);
    if (is_load && i.space == kParam)
      i.fn = bits == 8    ? load_param<u8>
             : bits == 16 ? load_param<u16>
             : bits == 32 ? load_param<u32>
                          : load_param<u64>;
    else if (is_load)
      i.fn = bits == 8 ? load<u8> : bits == 16 ? load<u16> : bits == 32 ? load<u32> : load<u64>;
    else
      i.fn = bits == 8 ? store<u8> : bits == 16 ? store<u16> : bits == 32 ? store<u32> : store<u64>;
    return true;
  }
  if (op == "atom" || op == "red") {
    i.space = kGeneric;
    i.flag = op == "red";
    bool known = false;
    static const std::map<std::string, Atomic> kinds = {
        {"add", Atomic::add}, {"min", Atomic::min},  {"max", Atomic::max},   {"and", Atomic::conj},
        {"or", Atomic::disj}, {"xor", Atomic::excl}, {"exch", Atomic::exch}, {"cas", Atomic::cas},
        {"inc", Atomic::inc}, {"dec", Atomic::dec}};
    for (std::size_t k = 1; k + 1 < s.op.size(); ++k) {
      const std::string& m = s.op[k];
      if (const auto it = kinds.find(m); it != kinds.end())
        i.count = static_cast<u8>(it->second), known = true;
      else if (space_of(m) != kGeneric)
        i.space = space_of(m);
      else if (m != "relaxed" && m != "acq_rel" && m != "acquire" && m != "release" && m != "gpu" &&
               m != "cta" && m != "sys")
        return false;
    }
    if (!known) return false;
    const std::string type = l.type();
    const bool is_wide = type.ends_with("64");
    const std::size_t first = i.flag ? 0 : 1;
    if (!i.flag) i.d = l.slot(l.arg(0), is_wide, type);
    l.address(i, s.args.at(first));
    i.b = l.slot(s.args.at(first + 1), is_wide, type);
    if (s.args.size() > first + 2) i.c = l.slot(s.args[first + 2], is_wide, type);
    i.fn = type == "f32"   ? atomic<float>
           : type == "f64" ? atomic<double>
           : type == "s32" ? atomic<i32>
           : type == "s64" ? atomic<i64>
           : is_wide       ? atomic<u64>
                           : atomic<u32>;
    return type.ends_with("32") || is_wide;
  }
  if (op == "cvta" || full == "mapa.u64") {
    i.d = l.slot(l.arg(0), true, "u64");
    i.a = l.slot(l.arg(1), true, "u64");
    if (full == "cvta.to.global.u64" || full == "cvta.global.u64") {
      i.fn = [](Warp& w, const Inst& i, u32 m) {
        each(m, [&](u32 l) { put_wide(w, i.d, l, wide(w, i.a, l)); });
      };
    } else if (full == "cvta.shared.u64") {
      i.fn = [](Warp& w, const Inst& i, u32 m) {
        each(m, [&](u32 l) { put_wide(w, i.d, l, wide(w, i.a, l) | kSharedWindow); });
      };
    } else if (full == "cvta.to.shared.u64") {
      i.fn = [](Warp& w, const Inst& i, u32 m) {
        each(m, [&](u32 l) {
          const u64 a = wide(w, i.a, l);
          if ((a & kWindows) != kSharedWindow)
            fail(w, l, "cvta.to.shared of " + hex(a) + ", which is not in shared memory");
          put_wide(w, i.d, l, a & ~kWindows);
        });
      };
    } else if (full == "cvta.local.u64") {
      i.fn = [](Warp& w, const Inst& i, u32 m) {
        each(m, [&](u32 l) { put_wide(w, i.d, l, wide(w, i.a, l) | kLocalWindow); });
      };
    } else if (full == "cvta.to.local.u64") {
      i.fn = [](Warp& w, const Inst& i, u32 m) {
        each(m, [&](u32 l) { put_wide(w, i.d, l, wide(w, i.a, l) & ~kWindows); });
      };
    } else if (full == "mapa.u64") {
      i.b = l.slot(l.arg(2), false, "u32");
      i.fn = [](Warp& w, const Inst& i, u32 m) {
        each(m, [&](u32 l) {
          const u64 a = wide(w, i.a, l);
          const u32 rank = w.r[i.b + l];
          if ((a & kWindows) != kSharedWindow)
            fail(w, l, "mapa of " + hex(a) + ", which is not in shared memory");
          if (rank >= w.machine->cluster.blocks.size())
            fail(w, l, "mapa to block " + std::to_string(rank) + " of the cluster");
          put_wide(w, i.d, l, kSharedWindow | u64{rank} << 24 | (a & 0xff'ffff));
        });
      };
    } else {
      return false;
    }
    return true;
  }
  return false;
}
}  // namespace retort::ptx
