/*
 * zeroport for C++17: zeroport.h, with owners, spans and types. Header only.
 *
 * WORDS (those of zeroport.h, and)
 *
 *   result       what a call gives: a value, or the status that says why there is none
 *   patience     how long a call may wait: nothing said, as long as it takes; no_wait; 100ms
 *   port         one end of a channel, which is closed when this object goes
 *   port_ref     the same port, used by who does not own it; it can't dangle, and can be copied
 *   message      what was received: its room is given back when this object goes
 *   message_ref  the same message, where a loop owns it
 *   item         a port or buffer on its way into a message
 *   plain data   a trivially copyable type with a name
 *   tag          what a message says of its type: made of name, size and alignment
 *
 *      port1.post(value)  ---> m3 m2 m1 --->  port2.recv()  ->  message  ->  get<T>()
 *         or post_bytes                                            |
 *         or reserve<T>() ... publish()                            '- goes: room is free again
 *
 * First come the tools (results, patience, spans, plain data, owners), then what is posted and
 * received (buffers, items, loans, messages), then the port, with its functions in the order of its
 * life; then where ports come from, servers, sets, loops. What each status means, who may wait and
 * which thread may call, zeroport.h says under the function that is named here; nothing is different
 * for being called from C++.
 *
 *      zeroport::port parent = zeroport::parent_port().value();
 *      auto question = parent.recv();
 *      for (; question; question = parent.recv()) {
 *          parent.post_bytes(question->bytes()).value();
 *      }
 *      puts(question.text());
 *
 * RESULTS
 *
 * Nothing here throws but value(), * and -> of a result that has no value: they throw
 * zeroport::error or, where exceptions are off (-fno-exceptions), say why and abort. So there are
 * two ways to write:
 *
 *      auto message = port.recv().value();              it throws
 *
 *      auto message = port.recv();                      nothing throws
 *      if (!message) return message.status();           (or text(), errno_value(), index())
 *      use(message->bytes());
 *
 * (Beside that std::vector and std::string may run out of memory, where they are used.) All of a
 * program is compiled the same way, with exceptions or without.
 *
 * OWNERS
 *
 * port, message, loan, buffer, server, caller, port_set and event_loop are moved, never copied;
 * moved from they are empty, and every call on an empty one is a status (ZP_BAD_HANDLE), as it is
 * for one that was closed or given away before. Any order of destruction is safe. Still, let
 * messages and loans go before their port: a port cannot be freed while messages of it are held
 * (ZP_BORROWED from close()). If a port object goes before them, its channel ends at once (the
 * other side sees ZP_CLOSED), the messages stay readable, and the rest of it goes with the last of
 * them. So it is with all that cannot go yet because something of it is held or another thread is
 * inside a call: it goes when the next thing of this program goes.
 *
 * What views a message (span, bytes, string_view) must not outlive it; so don't take it out of a
 * temporary: auto view = port.recv()->bytes();
 */
#ifndef ZEROPORT_HPP
#define ZEROPORT_HPP

#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "zeroport.h"

#if defined(__cpp_exceptions)
#define ZEROPORT_EXCEPTIONS 1
#else
#define ZEROPORT_EXCEPTIONS 0
#endif

namespace zeroport {

/* ---- Results --------------------------------------------------------------------------------- */

/* What the bytes of a message are not, where they should be plain data. */
enum class mismatch {
    none,
    type,      /* the tag is that of another type (or of none: bytes) */
    size,      /* not one value, or not a whole number of them */
    alignment, /* they do not lie where such a value may lie */
    count      /* another number of ports or buffers than was asked for */
};

/* How a call went. */
class outcome {
  public:
    outcome(zp_status status, std::size_t index = ZP_NO_INDEX) noexcept
        : status_(status), errno_(status == ZP_SYSTEM ? errno : 0), index_(index) {}
    outcome(mismatch differs) noexcept : outcome(ZP_BAD_ARGUMENT) { differs_ = differs; }

    bool ok() const noexcept { return status_ == ZP_OK; }
    explicit operator bool() const noexcept { return ok(); }

    zp_status status() const noexcept { return status_; }
    /* After ZP_SYSTEM what the system said, else 0. */
    int errno_value() const noexcept { return errno_; }
    /* The place in the list of what was refused, or of the first message that was not posted. */
    std::size_t index() const noexcept { return index_; }
    /*
     * With ZP_BAD_ARGUMENT: what differs, if plain data was expected and something else has come.
     */
    mismatch differs() const noexcept { return differs_; }

    /* Why, in a few words. */
    const char *text() const noexcept {
        switch (differs_) {
            case mismatch::type: return "the message is of another type";
            case mismatch::size: return "the size is not that of such values";
            case mismatch::alignment: return "such values cannot lie there: the alignment differs";
            case mismatch::count: return "another number of ports or buffers";
            case mismatch::none: break;
        }
        return zp_status_text(status_);
    }

  private:
    zp_status status_;
    int errno_;
    std::size_t index_;
    mismatch differs_ = mismatch::none;
};

#if ZEROPORT_EXCEPTIONS
/* What value() of a result throws that has none. */
class error : public std::runtime_error, public outcome {
  public:
    explicit error(const outcome &why) : std::runtime_error(describe(why)), outcome(why) {}

  private:
    static std::string describe(const outcome &why) {
        std::string text = why.text();
        if (why.errno_value() != 0) text.append(": ").append(std::strerror(why.errno_value()));
        return text;
    }
};
#endif

namespace detail {
[[noreturn]] inline void fail(const outcome &why) {
#if ZEROPORT_EXCEPTIONS
    throw error(why);
#else
    std::fprintf(stderr, "zeroport: %s\n", why.text());
    std::abort();
#endif
}
} // namespace detail

/* A value, or why there is none. */
template <class T>
class [[nodiscard]] result : public outcome {
  public:
    result(const T &value) : outcome(ZP_OK), value_(value) {}
    result(T &&value) : outcome(ZP_OK), value_(std::move(value)) {}
    /* A value that a call fills where it stays: to copy what was just written would have to wait. */
    template <class Fill>
    result(std::in_place_t, Fill fill) : outcome(ZP_OK), value_(std::in_place) {
        outcome::operator=(outcome(fill(*value_)));
    }
    result(const outcome &why) : outcome(why.ok() ? outcome(ZP_INTERNAL) : why) {}

    T &value() & { return check(), *value_; }
    const T &value() const & { return check(), *value_; }
    T value() && { return check(), std::move(*value_); }

    T &operator*() & { return value(); }
    const T &operator*() const & { return value(); }
    T operator*() && { return std::move(*this).value(); }
    T *operator->() { return &value(); }
    const T *operator->() const { return &value(); }

  private:
    void check() const {
        if (!ok()) detail::fail(*this);
    }
    std::optional<T> value_;
};

template <>
class [[nodiscard]] result<void> : public outcome {
  public:
    using outcome::outcome;
    result(const outcome &how) noexcept : outcome(how) {}
    void value() const {
        if (!ok()) detail::fail(*this);
    }
};

namespace detail {
/* What a call has filled, if it says so. */
template <class T, class Raw>
result<T> given(zp_status status, const Raw &raw) {
    if (status != ZP_OK) return outcome(status);
    return T(raw);
}
} // namespace detail

/* ---- Patience -------------------------------------------------------------------------------- */

/*
 * How long a call may wait: the three forms of zeroport.h. Durations are rounded up to
 * milliseconds.
 */
class patience {
  public:
    enum class form { for_ever, none, limited };

    constexpr patience(form chosen = form::for_ever) noexcept : form_(chosen) {}
    template <class Rep, class Period>
    constexpr patience(std::chrono::duration<Rep, Period> time) noexcept : form_(form::limited) {
        const double ms = std::chrono::duration<double, std::milli>(time).count();
        if (ms >= UINT32_MAX) {
            milliseconds_ = UINT32_MAX;
        } else if (ms > 0) {
            milliseconds_ = static_cast<std::uint32_t>(ms);
            if (milliseconds_ < ms) ++milliseconds_;
        }
    }

    constexpr std::uint32_t milliseconds() const noexcept { return milliseconds_; }

    /* Calls the one of three functions that is meant. */
    template <class Waits, class Tries, class Limited, class... Arguments>
    zp_status call(Waits waits, Tries tries, Limited limited, Arguments... arguments) const {
        switch (form_) {
            case form::none: return tries(arguments...);
            case form::limited: return limited(arguments..., milliseconds_);
            case form::for_ever: break;
        }
        return waits(arguments...);
    }

  private:
    form form_;
    std::uint32_t milliseconds_ = 0;
};

inline constexpr patience for_ever{patience::form::for_ever};
inline constexpr patience no_wait{patience::form::none};

/* ---- Spans ----------------------------------------------------------------------------------- */

/*
 * A view of so many T: made of whatever has data() and size() (std::vector, std::array, std::span),
 * of an array, of {pointer, count}; and std::span can be made of it.
 */
template <class T>
class span {
    template <class C>
    using element_of = std::remove_pointer_t<decltype(std::data(std::declval<C &>()))>;
    template <class C>
    using fits = std::enable_if_t<std::is_convertible_v<element_of<C> (*)[], T (*)[]> &&
                                  !std::is_same_v<std::remove_cv_t<C>, span>>;

  public:
    using element_type = T;
    using value_type = std::remove_cv_t<T>;

    constexpr span() noexcept = default;
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <class C, class = fits<std::remove_reference_t<C>>>
    constexpr span(C &&of) noexcept : data_(std::data(of)), size_(std::size(of)) {}
    /* As an argument only: the list goes with the call. */
    template <class U = T, class = std::enable_if_t<std::is_const_v<U>>>
    constexpr span(const std::initializer_list<value_type> &list) noexcept
        : span(std::data(list), list.size()) {}

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t index) const { return data_[index]; }
    /* The first of them, of which there are at least so many. */
    constexpr span first(std::size_t count) const noexcept { return {data_, count}; }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/*
 * Bytes to be posted: text (a literal or char array counts up to its terminating 0), or whatever has
 * data() and size() and elements of one byte, or {pointer, size}.
 */
class bytes : public span<const std::byte> {
    template <class E>
    static constexpr bool is_byte = sizeof(E) == 1 &&
                                    (std::is_integral_v<E> ||
                                     std::is_same_v<std::remove_cv_t<E>, std::byte>);
    template <class C>
    using fits =
        std::enable_if_t<is_byte<std::remove_pointer_t<decltype(std::declval<C &>().data())>>>;

  public:
    bytes() noexcept = default;
    bytes(const void *data, std::size_t size) noexcept
        : span(static_cast<const std::byte *>(data), size) {}
    bytes(const char *text) noexcept : bytes(text, text != nullptr ? std::strlen(text) : 0) {}
    template <class C, class = fits<const C>>
    bytes(const C &of) noexcept : bytes(of.data(), of.size()) {}
};

/* ---- Plain data ------------------------------------------------------------------------------ */

/*
 * The name of a type on the wire: the same type has the same name, size and alignment in every
 * program, in Rust too (its Tagged::NAME); change the name whenever the fields change. A struct
 * says it itself:
 *
 *      struct frame {
 *          static constexpr const char *zeroport_name = "camera.Frame";
 *          std::uint64_t number, taken_at;
 *      };
 *
 * and of types that are not yours you say it by
 *
 *      template <> struct zeroport::name_of<their::pixel> {
 *          static constexpr const char *value = "their.Pixel";
 *      };
 *
 * The integers are "u8" to "i64", whatever they are called here, float and double "f32" and "f64";
 * an array (std::array) is named as its element. char and wchar_t have no name: post_bytes for
 * text.
 *
 * Whoever receives plain data gets any bytes. So a field is an integer, a floating point number, an
 * enum with an underlying type (enum x : int), a std::byte, a char, or an array or struct of those.
 * Not a bool (it is 0 or 1, else behaviour is undefined): a std::uint8_t; not a pointer, which
 * leads nowhere in another process. Gaps between fields would travel with whatever lies in them:
 * fill them with fields (static_assert(std::has_unique_object_representations_v<frame>) if there
 * are no floats).
 */
template <class T, class = void>
struct name_of {};

namespace detail {
constexpr const char *integer_name(std::size_t size, bool is_signed) {
    switch (size) {
        case 1: return is_signed ? "i8" : "u8";
        case 2: return is_signed ? "i16" : "u16";
        case 4: return is_signed ? "i32" : "u32";
        default: return is_signed ? "i64" : "u64";
    }
}

template <class T, class... Others>
constexpr bool is_any_of = (std::is_same_v<T, Others> || ...);

template <class T>
constexpr bool is_integer = is_any_of<T, signed char, unsigned char, short, unsigned short, int,
                                      unsigned, long, unsigned long, long long, unsigned long long>;

/* FNV-1a, as src/tag.rs tells. */
constexpr std::uint32_t fnv(std::uint32_t hash, std::uint64_t byte) {
    return (hash ^ static_cast<std::uint32_t>(byte & 0xff)) * 16777619U;
}

constexpr std::uint32_t fnv_of_text(const char *text) {
    std::uint32_t hash = 2166136261U;
    for (; *text != 0; ++text) hash = fnv(hash, static_cast<unsigned char>(*text));
    return hash;
}

constexpr std::uint32_t never_0(std::uint32_t hash) { return hash == 0 ? 1 : hash; }
} // namespace detail

template <class T>
struct name_of<T, std::void_t<decltype(T::zeroport_name)>> {
    static constexpr const char *value = T::zeroport_name;
};
template <class T>
struct name_of<T, std::enable_if_t<detail::is_integer<T>>> {
    static constexpr const char *value = detail::integer_name(sizeof(T), std::is_signed_v<T>);
};
template <>
struct name_of<std::byte> : name_of<std::uint8_t> {};
template <>
struct name_of<float> {
    static constexpr const char *value = "f32";
};
template <>
struct name_of<double> {
    static constexpr const char *value = "f64";
};
template <class T, std::size_t N>
struct name_of<std::array<T, N>, std::void_t<decltype(name_of<T>::value)>> : name_of<T> {};

/* zp_tag_of_name, zp_tag_of_plain_data: at compile time. */
constexpr std::uint32_t tag_of_name(const char *name) {
    return detail::never_0(detail::fnv_of_text(name));
}

constexpr std::uint32_t tag_of_plain_data(const char *name, std::uint64_t size,
                                          std::uint64_t align) {
    std::uint32_t hash = detail::fnv(detail::fnv_of_text(name), 0);
    for (int bit = 0; bit < 64; bit += 8) hash = detail::fnv(hash, size >> bit);
    for (int bit = 0; bit < 64; bit += 8) hash = detail::fnv(hash, align >> bit);
    return detail::never_0(hash);
}

namespace detail {
template <class T, class = void>
struct has_name : std::false_type {};
template <class T>
struct has_name<T, std::void_t<decltype(name_of<T>::value)>> : std::true_type {};

/* An enum without an underlying type may hold some numbers only. */
template <class T, class = void>
struct takes_any_number : std::bool_constant<!std::is_enum_v<T>> {};
template <class T>
struct takes_any_number<T, std::void_t<decltype(T{0})>> : std::true_type {};

/* What plain data never is. */
template <class T>
constexpr void check_bits() {
    static_assert(
        std::is_trivially_copyable_v<T>,
        "zeroport: plain data is copied byte by byte: the type must be trivially copyable");
    static_assert(
        !std::is_pointer_v<T> && !std::is_member_pointer_v<T> && !std::is_null_pointer_v<T>,
        "zeroport: a pointer leads nowhere in another process");
    static_assert(!std::is_same_v<T, bool>,
                  "zeroport: a bool is 0 or 1, and any byte may come: take a std::uint8_t");
    static_assert(takes_any_number<T>::value,
                  "zeroport: any number may come: give the enum an underlying type");
    static_assert(!std::is_array_v<T>, "zeroport: take a std::array, or post_slice");
}

template <class T>
constexpr void check_plain() {
    check_bits<T>();
    static_assert(
        has_name<T>::value,
        "zeroport: plain data has a name (zeroport_name or zeroport::name_of): see there; for "
        "bytes and text there is post_bytes");
}

template <class T>
constexpr std::uint32_t tag_of() {
    check_plain<T>();
    return tag_of_plain_data(name_of<T>::value, sizeof(T), alignof(T));
}

/* So many T where some bytes are: with any bytes, see check_bits. */
template <class T, class Byte>
result<span<T>> values_at(Byte *data, std::size_t size) {
    if (size % sizeof(T) != 0) return outcome(mismatch::size);
    if (reinterpret_cast<std::uintptr_t>(data) % alignof(T) != 0)
        return outcome(mismatch::alignment);
    return span<T>(reinterpret_cast<T *>(data), size / sizeof(T));
}
} // namespace detail

/* The tag of a plain type, computed by the compiler. */
template <class T>
inline constexpr std::uint32_t tag_of = detail::tag_of<T>();

/* ---- Owners ---------------------------------------------------------------------------------- */

namespace detail {
inline zp_status let_go(zp_port port) noexcept { return zp_port_close(port); }
inline zp_status let_go(zp_buffer buffer) noexcept { return zp_buffer_free(buffer); }
inline zp_status let_go(zp_server server) noexcept { return zp_server_close(server); }
inline zp_status let_go(zp_caller caller) noexcept { return zp_caller_refuse(caller); }
inline zp_status let_go(zp_set set) noexcept { return zp_set_close(set); }
inline zp_status let_go(zp_loop loop) noexcept { return zp_loop_close(loop); }

/* What cannot go yet at least ends. */
inline void end(zp_port port) noexcept { zp_port_shutdown(port); }
inline void end(zp_loop loop) noexcept { zp_loop_stop(loop); }
template <class Raw>
void end(Raw) noexcept {}

/* What could not go when its owner went: tried again whenever something goes. */
class leftovers {
  public:
    using numbers = std::array<std::uint64_t, 2>;
    using attempt = zp_status (*)(numbers);

    static bool is_not_yet(zp_status status) noexcept {
        return status == ZP_BUSY || status == ZP_BORROWED || status == ZP_LOANED;
    }

    /* Tries once more, and then whenever something goes. */
    static void keep(attempt again, numbers what) noexcept {
        auto *one = new (std::nothrow) leftover{again, what, nullptr};
        if (one == nullptr) return; /* Then it goes with the process. */
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            push(one);
        }
        sweep();
    }

    /* Something went. */
    static void went() noexcept {
        /* Relaxed: a hint; the mutex orders all else. */
        if (any_.load(std::memory_order_relaxed)) sweep();
    }

  private:
    struct leftover {
        attempt again;
        numbers what;
        leftover *next;
    };

    static void push(leftover *one) noexcept {
        one->next = first_;
        first_ = one;
        any_.store(true, std::memory_order_relaxed);
    }

    /*
     * No lock is held while one goes: that may run code of the user's, which lets other things go.
     */
    static void sweep() noexcept {
        std::unique_lock<std::mutex> lock(mutex_);
        is_due_ = true;
        if (is_sweeping_) return;
        is_sweeping_ = true;
        while (is_due_) {
            is_due_ = false;
            leftover *all = std::exchange(first_, nullptr);
            while (all != nullptr) {
                leftover *one = std::exchange(all, all->next);
                lock.unlock();
                const bool is_left = is_not_yet(one->again(one->what));
                if (!is_left) delete one;
                lock.lock();
                if (is_left) push(one);
            }
        }
        is_sweeping_ = false;
        /* Not before: what goes meanwhile has to ask for another round. */
        any_.store(first_ != nullptr, std::memory_order_relaxed);
    }

    inline static std::mutex mutex_;
    inline static leftover *first_ = nullptr;
    inline static bool is_sweeping_ = false;
    inline static bool is_due_ = false;
    inline static std::atomic<bool> any_{false};
};

/* Lets a message or a loan go, now or later. */
template <class Raw, zp_status (*LetGo)(Raw *)>
void drop(Raw &raw) noexcept {
    if (raw.opaque[0] == 0) return;
    if (!leftovers::is_not_yet(LetGo(&raw))) return leftovers::went();
    const auto again = [](leftovers::numbers what) {
        Raw left{};
        left.opaque[0] = what[0];
        left.opaque[1] = what[1];
        return LetGo(&left);
    };
    leftovers::keep(again, {raw.opaque[0], raw.opaque[1]});
}

/* A handle of zeroport.h, which this does not own. */
template <class Raw>
class bare {
  public:
    /* For the functions of zeroport.h: it stays whose it is. */
    Raw handle() const noexcept { return raw_; }
    /* Whether it has a handle at all; that may be spent. */
    explicit operator bool() const noexcept { return raw_.id != 0; }

  protected:
    bare() noexcept = default;
    explicit bare(Raw raw) noexcept : raw_(raw) {}
    Raw raw_{0};
    using raw_type = Raw;
};

/* The one who owns it. */
template <class Base>
class owner : public Base {
    using Raw = typename Base::raw_type;

  public:
    owner() noexcept = default;
    explicit owner(Raw raw) noexcept : Base(raw) {}
    owner(owner &&other) noexcept : Base(other.take_handle()) {}
    owner &operator=(owner &&other) noexcept {
        Raw next = other.take_handle();
        drop(std::exchange(this->raw_, next));
        return *this;
    }
    ~owner() { drop(this->raw_); }

    /* The handle, which is the caller's to close from now on. */
    Raw take_handle() noexcept { return std::exchange(this->raw_, Raw{0}); }

    /* Closes or frees it, and says how that went: what cannot go yet (ZP_BORROWED, ...) stays. */
    result<void> close() noexcept {
        const zp_status status = let_go(this->raw_);
        if (!leftovers::is_not_yet(status)) this->raw_ = Raw{0};
        leftovers::went();
        return status;
    }

  private:
    static void drop(Raw raw) noexcept {
        if (raw.id == 0) return;
        if (leftovers::is_not_yet(let_go(raw))) {
            end(raw);
            leftovers::keep([](leftovers::numbers what) { return let_go(Raw{what[0]}); },
                            {raw.id, 0});
        } else {
            leftovers::went();
        }
    }
};
} // namespace detail

/* A descriptor of the operating system's, which is closed when this goes; -1 is none. */
class descriptor {
  public:
    descriptor() noexcept = default;
    explicit descriptor(int fd) noexcept : fd_(fd) {}
    descriptor(descriptor &&other) noexcept : fd_(other.take()) {}
    descriptor &operator=(descriptor &&other) noexcept {
        const int next = other.take();
        descriptor(std::exchange(fd_, next)).finish();
        return *this;
    }
    ~descriptor() { finish(); }

    int get() const noexcept { return fd_; }
    /* The number, which is the caller's to close from now on. */
    int take() noexcept { return std::exchange(fd_, -1); }

  private:
    void finish() noexcept {
        if (fd_ >= 0) ::close(std::exchange(fd_, -1));
    }
    int fd_ = -1;
};

/* ---- Buffers --------------------------------------------------------------------------------- */

/*
 * Memory of its own: written, then sealed or given away, and read-only from then on for everybody.
 */
class buffer : public detail::owner<detail::bare<zp_buffer>> {
  public:
    using owner::owner;

    /* zp_buffer_new: so many bytes, all 0. */
    static result<buffer> make(std::size_t size) {
        zp_buffer raw;
        return detail::given<buffer>(zp_buffer_new(size, &raw), raw);
    }

    /* zp_buffer_copy: another one, which can be written. */
    result<buffer> copy() const {
        zp_buffer raw;
        return detail::given<buffer>(zp_buffer_copy(raw_, &raw), raw);
    }

    /* zp_buffer_write: where to write. ZP_SEALED: no more. */
    result<span<std::byte>> write() {
        void *data;
        std::size_t size;
        const zp_status status = zp_buffer_write(raw_, &data, &size);
        if (status != ZP_OK) return outcome(status);
        return span<std::byte>(static_cast<std::byte *>(data), size);
    }

    /* zp_buffer_read: where to read, until it is sealed, given away or freed. */
    result<span<const std::byte>> bytes() const {
        const void *data;
        std::size_t size;
        const zp_status status = zp_buffer_read(raw_, &data, &size);
        if (status != ZP_OK) return outcome(status);
        return span<const std::byte>(static_cast<const std::byte *>(data), size);
    }

    /* The same as so many T, whatever was written there: a buffer has no tag. */
    template <class T>
    result<span<T>> write_as() {
        detail::check_bits<T>();
        auto to = write();
        if (!to) return outcome(to);
        return detail::values_at<T>(to->data(), to->size());
    }
    template <class T>
    result<span<const T>> as() const {
        detail::check_bits<T>();
        auto from = bytes();
        if (!from) return outcome(from);
        return detail::values_at<const T>(from->data(), from->size());
    }

    /* zp_buffer_seal: then ask anew where the bytes are. */
    result<void> seal() { return zp_buffer_seal(raw_); }
};

/* ---- What is posted -------------------------------------------------------------------------- */

class port;

/*
 * A port or buffer that goes with a message: {std::move(reply), std::move(picture)}. After a post
 * that succeeds it is given away, and its object here is spent (ZP_TRANSFERRED); after one that
 * fails it is the object's as before. A longer list is a std::vector<item>.
 */
struct item : zp_item {
    item(port &&going) noexcept;
    item(buffer &&going) noexcept : zp_item{going.handle().id} {}
};
static_assert(sizeof(item) == sizeof(zp_item), "a list of items is one of zp_items");

using items = span<const item>;

/* A message as it goes out: views of what they are made of. */
inline zp_post as_post(bytes data, std::uint32_t tag = 0) noexcept {
    return {data.data(), data.size(), nullptr, 0, tag, 0};
}
template <class T>
zp_post plain(const T &value) noexcept {
    return as_post({&value, sizeof value}, tag_of<T>);
}
template <class C>
zp_post plain_slice(const C &values) noexcept {
    const span view(std::data(values), std::size(values));
    using T = typename decltype(view)::value_type;
    return as_post({view.data(), view.size() * sizeof(T)}, tag_of<T>);
}

/* ---- Loans ----------------------------------------------------------------------------------- */

/*
 * Room for one message, which is written where it travels. Given back when this goes unpublished.
 */
class loan {
  public:
    loan() noexcept = default;
    explicit loan(zp_loan raw) noexcept : raw_(raw) {}
    loan(loan &&other) noexcept : raw_(std::exchange(other.raw_, zp_loan{})) {}
    loan &operator=(loan &&other) noexcept {
        zp_loan old = std::exchange(raw_, std::exchange(other.raw_, zp_loan{}));
        drop(old);
        return *this;
    }
    ~loan() { drop(raw_); }

    /* What stands there at first is any bytes. */
    span<std::byte> bytes() noexcept { return {static_cast<std::byte *>(raw_.data), raw_.len}; }

    /* zp_loan_publish: posts the first so many bytes. */
    result<void> publish(std::size_t size, items with = {}, std::uint32_t tag = 0) {
        std::size_t index;
        const zp_status status =
            zp_loan_publish(&raw_, size, tag, with.data(), with.size(), &index);
        return {status, index};
    }

    /* zp_loan_cancel: nothing is posted. */
    result<void> cancel() noexcept { return zp_loan_cancel(&raw_); }

  private:
    static void drop(zp_loan &raw) noexcept { detail::drop<zp_loan, zp_loan_cancel>(raw); }
    zp_loan raw_{};
};

/* The same for plain data: one T, or so many. Once published it holds none. */
template <class T>
class loan_of : public loan {
  public:
    loan_of() noexcept = default;
    explicit loan_of(loan &&room) noexcept : loan(std::move(room)) {}

    /* All are to be written: what stands there at first is any bytes. */
    span<T> values() noexcept {
        return {reinterpret_cast<T *>(bytes().data()), bytes().size() / sizeof(T)};
    }
    T &operator*() noexcept { return values()[0]; }
    T *operator->() noexcept { return values().data(); }

    /* Posts all of them, or the first so many. */
    result<void> publish(items with = {}) { return publish_first(values().size(), with); }
    result<void> publish_first(std::size_t count, items with = {}) {
        if (count > values().size()) return ZP_TOO_LARGE;
        return loan::publish(count * sizeof(T), with, tag_of<T>);
    }
};

/* ---- Messages -------------------------------------------------------------------------------- */

/* What a message holds, and how it is read. (Self has it.) */
template <class Self>
class payload {
  public:
    span<const std::byte> bytes() const noexcept {
        return {static_cast<const std::byte *>(self().data), self().len};
    }
    std::string_view text() const noexcept {
        return {static_cast<const char *>(self().data), self().len};
    }
    std::size_t size() const noexcept { return self().len; }

    /* 0: bytes; else the type that was posted. */
    std::uint32_t tag() const noexcept { return self().tag; }
    /* Whether it is tagged as plain data of this type: for programs that receive several. */
    template <class T>
    bool is() const noexcept {
        return tag() == tag_of<T>;
    }

    /* One value, as a copy. If it is none, differs() says what differs: mismatch::type or size. */
    template <class T>
    result<T> get() const {
        static_assert(std::is_default_constructible_v<T>, "zeroport: get_slice gives it in place");
        if (!is<T>()) return outcome(mismatch::type);
        if (size() != sizeof(T)) return outcome(mismatch::size);
        T value;
        std::memcpy(static_cast<void *>(&value), self().data, sizeof value);
        return value;
    }

    /* Any number of values (one, too), in place. mismatch::type, size or alignment. */
    template <class T>
    result<span<const T>> get_slice() const {
        if (!is<T>()) return outcome(mismatch::type);
        return detail::values_at<const T>(bytes().data(), size());
    }

  private:
    const auto &self() const noexcept { return static_cast<const Self *>(this)->raw_; }
};

/* What a message with a name holds; a view, as long as the message is there. */
class named : public payload<named> {
  public:
    explicit named(const zp_named &raw) noexcept : raw_(raw) {}

    std::string_view name() const noexcept { return {raw_.name, raw_.name_len}; }
    /* Whether the first port of the message is where the replies go. */
    bool is_request() const noexcept { return raw_.is_request != 0; }

  private:
    friend payload<named>;
    zp_named raw_;
};

/* A received message, used by who does not own it, until it is released. */
class message_ref : public payload<message_ref> {
  public:
    explicit message_ref(const zp_message &raw) noexcept : raw_(raw) {}

    /* For the functions of zeroport.h. */
    zp_message &raw() noexcept { return raw_; }

    /* zp_message_open: what it holds if it has a name, else ZP_UNNAMED. */
    result<named> open() const {
        zp_named raw;
        return detail::given<named>(zp_message_open(&raw_, &raw), raw);
    }

    /* How many were not taken yet. */
    std::size_t port_count() const noexcept { return raw_.port_count; }
    std::size_t buffer_count() const noexcept { return raw_.buffer_count; }

    /*
     * zp_message_take_ports, zp_message_take_buffers: all of them, added to the vector; after a
     * failure those that could be had (where one was none, an empty one).
     */
    result<void> take_ports(std::vector<port> &into);
    result<void> take_buffers(std::vector<buffer> &into);

    /*
     * The same, where exactly N are expected, else mismatch::count: auto [reply] = ...<1>().value()
     */
    template <std::size_t N>
    result<std::array<port, N>> take_ports();
    template <std::size_t N>
    result<std::array<buffer, N>> take_buffers();

    /* zp_message_release: gives the room back now. */
    result<void> release() noexcept {
        const zp_status status = zp_message_release(&raw_);
        detail::leftovers::went();
        return status;
    }

  protected:
    message_ref() noexcept = default;

  private:
    friend payload<message_ref>;
    friend class message;
    zp_message raw_{};
};

/* A received message. Its room is given back when this object goes; see OWNERS. */
class message : public message_ref {
  public:
    message() noexcept = default;
    explicit message(const zp_message &raw) noexcept : message_ref(raw) {}
    message(message &&other) noexcept : message_ref(other.take_raw()) {}
    message &operator=(message &&other) noexcept {
        const zp_message next = other.take_raw();
        zp_message old = std::exchange(raw_, next);
        drop(old);
        return *this;
    }
    ~message() { drop(raw_); }

    explicit operator bool() const noexcept { return raw_.opaque[0] != 0; }

    /* The message, which is the caller's to release from now on. */
    zp_message take_raw() noexcept { return std::exchange(raw_, zp_message{}); }

  private:
    static void drop(zp_message &raw) noexcept {
        detail::drop<zp_message, zp_message_release>(raw);
    }
};
static_assert(sizeof(message) == sizeof(zp_message) && std::is_standard_layout_v<message>,
              "an array of messages is one of zp_messages");

/* zp_messages_release: the room of many, which are empty then. */
inline result<void> release(span<message> messages) noexcept {
    const zp_status status =
        zp_messages_release(reinterpret_cast<zp_message *>(messages.data()), messages.size());
    detail::leftovers::went();
    return status;
}

/* ---- Ports ----------------------------------------------------------------------------------- */

/* zp_channel_options as ZP_CHANNEL_OPTIONS_INIT makes them: change the fields that you want. */
struct channel_options : zp_channel_options {
    channel_options() noexcept : zp_channel_options ZP_CHANNEL_OPTIONS_INIT {}
};

/* A port outside of this library: see zp_port_detach. */
struct detached_port {
    std::array<std::uint8_t, ZP_TICKET_LEN> ticket{};
    std::vector<descriptor> fds;
};

/* A port, used by who does not own it: a member of a set or loop, or somebody else's. */
class port_ref : public detail::bare<zp_port> {
  public:
    port_ref() noexcept = default;
    explicit port_ref(zp_port raw) noexcept : bare(raw) {}

    /* zp_port_post: bytes, without a type, and with ports and buffers. */
    result<void> post_bytes(bytes data, patience wait = for_ever) {
        return wait.call(zp_port_post, zp_port_try_post, zp_port_post_timeout, raw_, data.data(),
                         data.size());
    }
    result<void> post_bytes(bytes data, items with, patience wait = for_ever) {
        return post_with(as_post(data), with, wait);
    }

    /* One value of plain data: get<T>() at the other end (in Rust: pod). */
    template <class T>
    result<void> post(const T &value, patience wait = for_ever) {
        return post_with(plain(value), {}, wait);
    }
    template <class T>
    result<void> post(const T &value, items with, patience wait = for_ever) {
        return post_with(plain(value), with, wait);
    }

    /* A vector, array or span of plain data in one message: get_slice<T>() there (pod_slice). */
    template <class C>
    result<void> post_slice(const C &values, patience wait = for_ever) {
        return post_with(plain_slice(values), {}, wait);
    }
    template <class C>
    result<void> post_slice(const C &values, items with, patience wait = for_ever) {
        return post_with(plain_slice(values), with, wait);
    }

    /* zp_port_post_with: all that a message can be. */
    result<void> post_with(const zp_post &post, items with, patience wait = for_ever) {
        if (with.empty()) return post_as_is(post, wait);
        zp_post all = post;
        all.items = with.data();
        all.item_count = with.size();
        return post_as_is(all, wait);
    }

    /* zp_port_post_named: with a name, which the other end sees by open(). */
    result<void> post_named(const std::string &name, const zp_post &post, items with = {},
                            patience wait = for_ever) {
        std::size_t index = ZP_NO_INDEX;
        zp_post all = post;
        all.items = with.data();
        all.item_count = with.size();
        const zp_status status =
            wait.call(zp_port_post_named, zp_port_try_post_named, zp_port_post_named_timeout, raw_,
                      name.c_str(), &all, &index);
        return {status, index};
    }

    /*
     * zp_port_invoke: a request, with a name; the replies come on the port that it gives. One with
     * the tag ZP_TAG_FAILED is the text of a failure. (wait is for room, not for replies.)
     */
    result<port> invoke(const std::string &name, const zp_post &post, items with = {},
                        patience wait = for_ever);

    /*
     * zp_port_post_all: {plain(a), plain(b), as_post("c")}, which appear at once. The value is
     * their number; after a failure index() is the first one that was not posted.
     */
    result<std::size_t> post_all(span<const zp_post> posts, patience wait = for_ever) {
        std::size_t posted = 0;
        const zp_status status =
            wait.call(zp_port_post_all, zp_port_try_post_all, zp_port_post_all_timeout, raw_,
                      posts.data(), posts.size(), &posted);
        if (status != ZP_OK) return outcome(status, posted);
        return posted;
    }

    /* zp_port_reserve: so many bytes, to be written in place. */
    result<loan> reserve_bytes(std::size_t size, patience wait = for_ever) {
        zp_loan raw;
        return detail::given<loan>(wait.call(zp_port_reserve, zp_port_try_reserve,
                                             zp_port_reserve_timeout, raw_, size, &raw),
                                   raw);
    }
    /*
     * The same for one value of plain data, or count of them. (mismatch::alignment, sometimes: of
     * types that have to lie at multiples of more than 16 bytes.)
     */
    template <class T>
    result<loan_of<T>> reserve(patience wait = for_ever) {
        return reserve_slice<T>(1, wait);
    }
    template <class T>
    result<loan_of<T>> reserve_slice(std::size_t count, patience wait = for_ever) {
        detail::check_plain<T>();
        if (count > SIZE_MAX / sizeof(T)) return outcome(ZP_TOO_LARGE);
        auto room = reserve_bytes(count * sizeof(T), wait);
        if (!room) return outcome(room);
        const auto values = detail::values_at<T>(room->bytes().data(), count * sizeof(T));
        if (!values) return outcome(values);
        return loan_of<T>(std::move(*room));
    }

    /* zp_port_recv: the next message. */
    result<message> recv(patience wait = for_ever) {
        return {std::in_place, [&](message &to) {
                    return wait.call(zp_port_recv, zp_port_try_recv, zp_port_recv_timeout, raw_,
                                     &to.raw());
                }};
    }
    result<message> try_recv() { return recv(no_wait); }

    /*
     * zp_port_recv_all: the next one, and what else is there already. What the messages held before
     * is released first; the value is those that came.
     */
    result<span<message>> recv_all(span<message> messages, patience wait = for_ever) {
        for (message &old : messages) old = message();
        std::size_t count;
        const zp_status status =
            wait.call(zp_port_recv_all, zp_port_try_recv_all, zp_port_recv_all_timeout, raw_,
                      reinterpret_cast<zp_message *>(messages.data()), messages.size(), &count);
        if (status != ZP_OK) return outcome(status);
        return messages.first(count);
    }

    /*
     * zp_port_fd, zp_port_arm, zp_port_disarm: the port in a poll loop. After ZP_READY receive
     * first.
     */
    result<int> fd() const {
        int fd;
        return detail::given<int>(zp_port_fd(raw_, &fd), fd);
    }
    result<void> arm() { return zp_port_arm(raw_); }
    result<void> disarm() { return zp_port_disarm(raw_); }

    /* zp_port_peer_state: ok while the channel is open. */
    result<void> peer_state() const { return zp_port_peer_state(raw_); }

    result<std::size_t> max_payload() const {
        std::size_t size;
        return detail::given<std::size_t>(zp_port_max_payload(raw_, &size), size);
    }
    result<zp_info> info() const {
        zp_info info;
        return detail::given<zp_info>(zp_port_info(raw_, &info), info);
    }

    /* zp_port_set_wait: ZP_WAIT_... */
    result<void> set_wait(std::uint32_t wait) { return zp_port_set_wait(raw_, wait); }

    /* zp_port_shutdown: ends the channel, from any thread. */
    result<void> shutdown() noexcept { return zp_port_shutdown(raw_); }
    /*
     * zp_port_close: whoever owns the port finds it closed (ZP_FREED). A member leaves its set or
     * loop.
     */
    result<void> close() noexcept { return zp_port_close(raw_); }

    friend bool operator==(port_ref a, port_ref b) noexcept { return a.raw_.id == b.raw_.id; }
    friend bool operator!=(port_ref a, port_ref b) noexcept { return !(a == b); }

  private:
    result<void> post_as_is(const zp_post &post, patience wait) {
        std::size_t index = ZP_NO_INDEX;
        const zp_status status = wait.call(zp_port_post_with, zp_port_try_post_with,
                                           zp_port_post_with_timeout, raw_, &post, &index);
        return {status, index};
    }
};

struct halves;

/* One end of a channel. The channel ends when this object goes; see OWNERS. */
class port : public detail::owner<port_ref> {
  public:
    using owner::owner;

    /*
     * zp_port_split: two halves, for a thread each; the port is spent. join makes one of them again,
     * and they are spent. After a failure all are as before.
     */
    result<halves> split();
    static result<port> join(port &&sender, port &&receiver) {
        zp_port raw;
        const zp_status status = zp_port_join(sender.raw_, receiver.raw_, &raw);
        if (status != ZP_OK) return outcome(status);
        sender.take_handle();
        receiver.take_handle();
        return port(raw);
    }

    /* zp_port_detach: gives it away as descriptors. If that fails the port is as before. */
    result<detached_port> detach(std::uint32_t trust) {
        detached_port out;
        out.fds.reserve(ZP_MAX_DESCRIPTORS);
        int fds[ZP_MAX_DESCRIPTORS];
        std::size_t count;
        const zp_status status =
            zp_port_detach(raw_, trust, out.ticket.data(), fds, ZP_MAX_DESCRIPTORS, &count);
        if (status != ZP_OK) return outcome(status);
        take_handle();
        for (std::size_t at = 0; at < count; ++at) out.fds.emplace_back(fds[at]);
        return out;
    }

    /* zp_port_attach: makes a port of what detach gave. The descriptors are spent. */
    static result<port> attach(detached_port from, std::uint32_t trust) {
        std::vector<int> fds;
        for (const descriptor &fd : from.fds) fds.push_back(fd.get());
        zp_port raw;
        const zp_status status =
            zp_port_attach(from.ticket.data(), fds.data(), fds.size(), trust, &raw);
        if (status != ZP_BAD_ARGUMENT) {
            for (descriptor &fd : from.fds) fd.take();
        }
        if (status != ZP_OK) return outcome(status);
        return port(raw);
    }
};

inline result<port> port_ref::invoke(const std::string &name, const zp_post &post, items with,
                                     patience wait) {
    std::size_t index = ZP_NO_INDEX;
    zp_post all = post;
    all.items = with.data();
    all.item_count = with.size();
    zp_port replies;
    const zp_status status = wait.call(zp_port_invoke, zp_port_try_invoke, zp_port_invoke_timeout,
                                       raw_, name.c_str(), &all, &index, &replies);
    if (status != ZP_OK) return outcome(status, index);
    return port(replies);
}

/* What posts, and what receives, of one port: all else of a port is ZP_HALF. */
struct halves {
    port sender, receiver;
};

inline result<halves> port::split() {
    zp_port raw[2];
    const zp_status status = zp_port_split(raw_, raw);
    if (status != ZP_OK) return outcome(status);
    take_handle();
    return halves{port(raw[0]), port(raw[1])};
}

inline item::item(port &&going) noexcept : zp_item{going.handle().id} {}

/* Two entangled ports. */
struct channel {
    port port1, port2;
};

/* zp_channel_new: auto [mine, theirs] = make_channel().value(); */
inline result<channel> make_channel(const channel_options &options = {}) {
    zp_port raw[2];
    const zp_status status = zp_channel_new(raw, &options);
    if (status != ZP_OK) return outcome(status);
    return channel{port(raw[0]), port(raw[1])};
}

/* zp_parent_port: the port to the program that has started this one. */
inline result<port> parent_port() {
    zp_port raw;
    return detail::given<port>(zp_parent_port(&raw), raw);
}

/* A child process, to be waited for with waitpid(2), and the port to it. */
struct child {
    zeroport::port port;
    pid_t pid;
};

/* zp_spawn: {program, arguments...}; environment: NAME=value for all, or null for our own. */
inline result<child> spawn(std::vector<std::string> command, const channel_options &options = {},
                           const std::vector<std::string> *environment = nullptr) {
    const auto pointers = [](std::vector<std::string> &texts) {
        std::vector<char *> all;
        for (std::string &text : texts) all.push_back(text.data());
        all.push_back(nullptr);
        return all;
    };
    std::vector<std::string> variables;
    if (environment != nullptr) variables = *environment;
    zp_port raw;
    pid_t pid;
    const zp_status status = zp_spawn(pointers(command).data(),
                                      environment != nullptr ? pointers(variables).data() : nullptr,
                                      &options, &raw, &pid);
    if (status != ZP_OK) return outcome(status);
    return child{port(raw), pid};
}

/* Ports and buffers come out of messages. */
namespace detail {
template <class Owner, class Raw, class Take>
result<void> take_all(zp_message &from, std::size_t expected, Take take, std::vector<Owner> &into) {
    std::vector<Raw> raw(expected);
    into.reserve(into.size() + expected);
    std::size_t count = 0;
    const zp_status status = take(&from, raw.data(), raw.size(), &count);
    const outcome how(status); /* before errno is another's */
    for (std::size_t at = 0; at < count && at < expected; ++at) into.emplace_back(raw[at]);
    return how;
}

template <class Owner, class Raw, std::size_t N, class Take>
result<std::array<Owner, N>> take_exactly(zp_message &from, std::size_t expected, Take take) {
    if (expected != N) return outcome(mismatch::count);
    Raw raw[N];
    std::size_t count = 0;
    const zp_status status = take(&from, raw, N, &count);
    const outcome how(status);
    std::array<Owner, N> all;
    for (std::size_t at = 0; at < count && at < N; ++at) all[at] = Owner(raw[at]);
    if (!how) return how;
    return all;
}
} // namespace detail

inline result<void> message_ref::take_ports(std::vector<port> &into) {
    return detail::take_all<port, zp_port>(raw_, port_count(), zp_message_take_ports, into);
}
inline result<void> message_ref::take_buffers(std::vector<buffer> &into) {
    return detail::take_all<buffer, zp_buffer>(raw_, buffer_count(), zp_message_take_buffers, into);
}
template <std::size_t N>
result<std::array<port, N>> message_ref::take_ports() {
    return detail::take_exactly<port, zp_port, N>(raw_, port_count(), zp_message_take_ports);
}
template <std::size_t N>
result<std::array<buffer, N>> message_ref::take_buffers() {
    return detail::take_exactly<buffer, zp_buffer, N>(raw_, buffer_count(),
                                                      zp_message_take_buffers);
}

/* ---- Servers --------------------------------------------------------------------------------- */

/* zp_credentials, whose pidfd is closed when this goes. */
struct credentials {
    uid_t uid = 0;
    gid_t gid = 0;
    pid_t pid = 0;
    descriptor pidfd;

    credentials() noexcept = default;
    explicit credentials(const zp_credentials &raw) noexcept
        : uid(raw.uid), gid(raw.gid), pid(raw.pid), pidfd(raw.pidfd) {}
};

/* Who wants a port of a server: admitted, or refused (also when this object goes). */
class caller : public detail::owner<detail::bare<zp_caller>> {
  public:
    caller(zp_caller raw, zeroport::credentials who) noexcept : owner(raw), who_(std::move(who)) {}

    const zeroport::credentials &credentials() const noexcept { return who_; }

    /* zp_caller_admit: the caller is spent. */
    result<port> admit() { return admit(nullptr); }
    result<port> admit(const channel_options &options) { return admit(&options); }
    /* zp_caller_refuse */
    result<void> refuse() noexcept { return close(); }

  private:
    result<port> admit(const channel_options *options) {
        zp_port raw;
        const zp_status status = zp_caller_admit(raw_, options, &raw);
        if (status != ZP_OK) return outcome(status);
        take_handle();
        return port(raw);
    }
    zeroport::credentials who_;
};

/* Listens at an address, until this object goes. */
class server : public detail::owner<detail::bare<zp_server>> {
  public:
    using owner::owner;

    /* zp_server_bind: a path, or '@' and a name. */
    static result<server> bind(const std::string &address) {
        zp_server raw;
        return detail::given<server>(zp_server_bind(address.c_str(), &raw), raw);
    }

    /* zp_server_fd: readable while a caller waits. */
    result<int> fd() const {
        int fd;
        return detail::given<int>(zp_server_fd(raw_, &fd), fd);
    }

    /* zp_server_accept: the next caller. */
    result<caller> accept(patience wait = for_ever) {
        zp_caller raw;
        zp_credentials who;
        const zp_status status = wait.call(zp_server_accept, zp_server_try_accept,
                                           zp_server_accept_timeout, raw_, &raw, &who);
        if (status != ZP_OK) return outcome(status);
        return caller(raw, credentials(who));
    }
};

/* A port to a server, and who that is. */
struct connection {
    zeroport::port port;
    credentials server;
};

/* zp_connect */
inline result<connection> connect(const std::string &address, patience wait = for_ever,
                                  const channel_options &options = {}) {
    zp_port raw;
    zp_credentials who;
    const auto at_once = [](auto... arguments) { return zp_connect_timeout(arguments..., 0); };
    const channel_options *const chosen = &options;
    const zp_status status =
        wait.call(zp_connect, at_once, zp_connect_timeout, address.c_str(), chosen, &raw, &who);
    if (status != ZP_OK) return outcome(status);
    return connection{port(raw), credentials(who)};
}

/* ---- Sets ------------------------------------------------------------------------------------ */

/* What a set tells: zp_event, whose message is released when this goes. */
struct event {
    void *user = nullptr;
    port_ref port;
    std::uint32_t kind = 0; /* ZP_EVENT_MESSAGE, ZP_EVENT_CLOSED, ZP_EVENT_FAILED */
    zp_status status = ZP_OK;
    zeroport::message message;
};
static_assert(std::is_standard_layout_v<event> && sizeof(event) == sizeof(zp_event) &&
                  offsetof(event, port) == offsetof(zp_event, port) &&
                  offsetof(event, kind) == offsetof(zp_event, kind) &&
                  offsetof(event, status) == offsetof(zp_event, status) &&
                  offsetof(event, message) == offsetof(zp_event, message),
              "an array of events is one of zp_events");

/*
 * Waits for many ports at once.
 *
 *      std::array<zeroport::event, 64> events;
 *      while (auto told = set.wait(events)) {
 *          for (zeroport::event &event : *told) ...
 *      }
 *
 * The set owns its members, and closes them when it goes.
 */
class port_set : public detail::owner<detail::bare<zp_set>> {
  public:
    using owner::owner;

    /* zp_set_new */
    static result<port_set> make() {
        zp_set raw;
        return detail::given<port_set>(zp_set_new(&raw), raw);
    }

    /*
     * zp_set_insert: from now on the port is the set's, and this is how to post on it. user comes
     * with every event. If it fails the port is the caller's as before.
     */
    result<port_ref> insert(port &&member, void *user = nullptr) {
        const zp_status status = zp_set_insert(raw_, member.handle(), user);
        if (status != ZP_OK) return outcome(status);
        return port_ref(member.take_handle());
    }

    /* zp_set_remove: the port is the caller's again, with what waits in it. */
    result<port> remove(port_ref member) {
        const zp_status status = zp_set_remove(raw_, member.handle());
        if (status != ZP_OK) return outcome(status);
        return port(member.handle());
    }

    /* zp_set_pause, zp_set_resume */
    result<void> pause(port_ref member) { return zp_set_pause(raw_, member.handle()); }
    result<void> resume(port_ref member) { return zp_set_resume(raw_, member.handle()); }

    /*
     * zp_set_wait: the value is those of the events that were filled (none after wake). The
     * messages that they held before are released first.
     */
    result<span<event>> wait(span<event> events, patience wait = for_ever) {
        for (event &old : events) old = event();
        std::size_t count;
        const zp_status status =
            wait.call(zp_set_wait, zp_set_try_wait, zp_set_wait_timeout, raw_,
                      reinterpret_cast<zp_event *>(events.data()), events.size(), &count);
        if (status != ZP_OK) return outcome(status);
        return events.first(count);
    }

    /* zp_set_wake: ends a wait, from any thread. */
    result<void> wake() const { return zp_set_wake(raw_); }

    /* zp_set_fd, zp_set_arm: the set in a poll loop. After ZP_READY wait first. */
    result<int> fd() const {
        int fd;
        return detail::given<int>(zp_set_fd(raw_, &fd), fd);
    }
    result<void> arm() { return zp_set_arm(raw_); }

    /* zp_set_set_wait: ZP_WAIT_... */
    result<void> set_wait(std::uint32_t wait) { return zp_set_set_wait(raw_, wait); }
};

/* ---- Loops ----------------------------------------------------------------------------------- */

namespace detail {
#if ZEROPORT_EXCEPTIONS
/* A run of a loop on this thread, and what a handler has thrown in it. */
struct run {
    zp_loop loop;
    std::exception_ptr thrown;
    run *outer;
    inline static thread_local run *innermost = nullptr;

    explicit run(zp_loop of) noexcept : loop(of), outer(std::exchange(innermost, this)) {}
    run(const run &) = delete;
    ~run() { innermost = outer; }

    static run *of(zp_loop loop) noexcept {
        run *found = innermost;
        while (found != nullptr && found->loop.id != loop.id) found = found->outer;
        return found;
    }
};
#endif

/* Calls a handler, from C: what it throws ends the run, which throws it again. */
template <class Call>
void guarded(zp_loop loop, Call call) noexcept {
#if ZEROPORT_EXCEPTIONS
    try {
        call();
    } catch (...) {
        run *running = run::of(loop);
        if (running == nullptr) std::terminate(); /* it was run by zp_loop_run */
        running->thrown = std::current_exception();
        zp_loop_stop(loop);
    }
#else
    (void)loop;
    call();
#endif
}

/* The handlers of one port: made by insert, deleted by removed. */
template <class OnMessage, class OnClose, class OnError>
struct listener {
    zp_loop loop;
    OnMessage on_message;
    OnClose on_close;
    OnError on_error;

    template <class Handler>
    static constexpr bool is_one = !std::is_same_v<Handler, std::nullptr_t>;

    static zp_handlers handlers() noexcept {
        zp_handlers all{sizeof(zp_handlers), nullptr, nullptr, nullptr, nullptr};
        if constexpr (is_one<OnMessage>) {
            all.on_message = [](void *user, zp_port port, zp_message *message) {
                auto *self = static_cast<listener *>(user);
                guarded(self->loop, [&] {
                    message_ref told(*message);
                    self->on_message(port_ref(port), told);
                });
            };
        }
        if constexpr (is_one<OnClose>) {
            all.on_close = [](void *user, zp_port port, zp_status status) {
                auto *self = static_cast<listener *>(user);
                guarded(self->loop, [&] { self->on_close(port_ref(port), status); });
            };
        }
        if constexpr (is_one<OnError>) {
            all.on_error = [](void *user, zp_port port, zp_status status) {
                auto *self = static_cast<listener *>(user);
                guarded(self->loop, [&] { self->on_error(port_ref(port), outcome(status)); });
            };
        }
        all.removed = [](void *user) { delete static_cast<listener *>(user); };
        return all;
    }
};
} // namespace detail

/*
 * Waits for many ports and calls handlers, one after the other, on the thread that runs it:
 *
 *      loop.insert(std::move(port), [](zeroport::port_ref port, zeroport::message_ref &message) {
 *          port.post_bytes(message.bytes()).value();
 *      }).value();
 *      loop.run().value();
 *
 * The loop owns its members, and closes them when it goes. (An object that goes inside of a handler
 * of its own stops the run, and closes when that has ended.)
 */
class event_loop : public detail::owner<detail::bare<zp_loop>> {
  public:
    using owner::owner;

    /* zp_loop_new */
    static result<event_loop> make() {
        zp_loop raw;
        return detail::given<event_loop>(zp_loop_new(&raw), raw);
    }

    /*
     * zp_loop_insert: from now on the port is the loop's. Handlers are whatever can be called with
     *
     *      on_message(port_ref, message_ref &)   the message is released when it returns, and also
     *                                            when its port is closed or removed before
     *      on_close(port_ref, zp_status)         the channel has ended
     *      on_error(port_ref, outcome)           the next message cannot be had now
     *
     * or nullptr. They are moved in, and destroyed once nothing more can be called (removed): never
     * while one of them runs. What one throws ends the run, which throws it; its port stays a
     * member. If this fails the port is the caller's as before, and the handlers are destroyed.
     */
    template <class OnMessage, class OnClose = std::nullptr_t, class OnError = std::nullptr_t>
    result<port_ref> insert(port &&member, OnMessage on_message, OnClose on_close = {},
                            OnError on_error = {}) {
        using listener = detail::listener<OnMessage, OnClose, OnError>;
        std::unique_ptr<listener> user(
            new listener{raw_, std::move(on_message), std::move(on_close), std::move(on_error)});
        const zp_handlers handlers = listener::handlers();
        const zp_status status = zp_loop_insert(raw_, member.handle(), &handlers, user.get());
        if (status != ZP_OK) return outcome(status);
        user.release();
        return port_ref(member.take_handle());
    }

    /* zp_loop_remove: the port is the caller's again, with what waits in it. */
    result<port> remove(port_ref member) {
        const zp_status status = zp_loop_remove(raw_, member.handle());
        if (status != ZP_OK) return outcome(status);
        return port(member.handle());
    }

    /* zp_loop_pause, zp_loop_resume */
    result<void> pause(port_ref member) { return zp_loop_pause(raw_, member.handle()); }
    result<void> resume(port_ref member) { return zp_loop_resume(raw_, member.handle()); }

    /*
     * zp_loop_run, zp_loop_run_once, zp_loop_run_ready; run_for is zp_loop_run_timeout. The last
     * three are ZP_FINISHED when the loop was stopped or has no port left: while (loop.run_once())
     * {}
     */
    result<void> run() { return ran(zp_loop_run); }
    result<void> run_once() { return ran(zp_loop_run_once); }
    result<void> run_ready() { return ran(zp_loop_run_ready); }
    template <class Rep, class Period>
    result<void> run_for(std::chrono::duration<Rep, Period> time) {
        return ran(zp_loop_run_timeout, patience(time).milliseconds());
    }

    /* zp_loop_stop, zp_loop_wake: from any thread. */
    result<void> stop() const { return zp_loop_stop(raw_); }
    result<void> wake() const { return zp_loop_wake(raw_); }

    /* zp_loop_fd, zp_loop_arm: the loop in a poll loop. After ZP_READY run_ready first. */
    result<int> fd() const {
        int fd;
        return detail::given<int>(zp_loop_fd(raw_, &fd), fd);
    }
    result<void> arm() { return zp_loop_arm(raw_); }

    /* zp_loop_set_wait: ZP_WAIT_... */
    result<void> set_wait(std::uint32_t wait) { return zp_loop_set_wait(raw_, wait); }

  private:
    /* A handler may destroy this object: afterwards it is not touched. */
    template <class Run, class... Arguments>
    result<void> ran(Run runs, Arguments... arguments) {
#if ZEROPORT_EXCEPTIONS
        detail::run running(raw_);
        const outcome how(runs(raw_, arguments...));
        detail::leftovers::went();
        if (running.thrown) std::rethrow_exception(running.thrown);
#else
        const outcome how(runs(raw_, arguments...));
        detail::leftovers::went();
#endif
        return how;
    }
};

/* The version of the library: ZP_VERSION is the header's. */
inline std::uint32_t version() noexcept { return zp_version(); }

} // namespace zeroport

#endif
