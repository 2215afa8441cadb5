/*
 * Plain data to and from a Rust program, which has started this one: each value comes back, changed
 * in a way that the other side knows; of what is none of them comes back what differs, as text. The
 * messages at the end are of types that the Rust program has under the same name with other fields.
 */
#include "expect.hpp"

namespace {

struct reading {
    static constexpr const char *zeroport_name = "test.Reading";
    std::uint64_t taken_at;
    std::int32_t values[3];
    float weight;
};
static_assert(sizeof(reading) == 24 && alignof(reading) == 8);

/* What the Rust program has under this name is one number longer. */
struct changed {
    static constexpr const char *zeroport_name = "test.Changed";
    std::uint32_t number;
};

template <class T>
T next(T value) {
    return static_cast<T>(value + 1);
}

reading next(reading value) {
    value.taken_at += 1;
    for (std::int32_t &one : value.values) one = -one;
    value.weight *= 2;
    return value;
}

std::array<std::uint16_t, 3> next(std::array<std::uint16_t, 3> value) {
    return {value[2], value[1], value[0]};
}

/* Answers a message if it is a T, or many. */
template <class T>
bool answer(zeroport::port &port, const zeroport::message &message) {
    if (!message.is<T>()) return false;
    if (const auto one = message.get<T>()) {
        EXPECT(ZP_OK, port.post(next(*one)));
    } else {
        HOLDS(one.differs() == zeroport::mismatch::size);
        std::vector<T> all;
        for (const T &value : GET(message.get_slice<T>())) all.push_back(next(value));
        EXPECT(ZP_OK, port.post_slice(all));
    }
    return true;
}

template <class... T>
bool is_any_of(zeroport::port &port, const zeroport::message &message) {
    return (answer<T>(port, message) || ...);
}

} // namespace

int main() {
    zeroport::port parent = GET(zeroport::parent_port());
    auto message = parent.recv();
    for (; message; message = parent.recv()) {
        const bool is_known =
            is_any_of<std::int8_t, std::uint8_t, std::int16_t, std::uint16_t, std::int32_t,
                      std::uint32_t, std::int64_t, std::uint64_t, float, double, reading,
                      std::array<std::uint16_t, 3>>(parent, *message);
        if (!is_known) EXPECT(ZP_OK, parent.post_bytes(message->get<changed>().text()));
        if (message->text() == "now you") {
            EXPECT(ZP_OK, parent.post(changed{1}));
            EXPECT(ZP_OK, parent.post(1));
            EXPECT(ZP_OK, parent.post_with(zeroport::as_post("abc", zeroport::tag_of<int>), {}));
        }
    }
    EXPECT(ZP_CLOSED, message);
    return 0;
}
