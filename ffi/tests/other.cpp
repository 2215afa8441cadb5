/* A second translation unit: whatever the header defines is one thing in both. */
#include "expect.hpp"

std::uint32_t elsewhere() {
    auto [near, far] = a_channel();
    EXPECT(ZP_OK, near.post(zeroport::version()));
    return GET(GET(far.recv()).get<std::uint32_t>());
}
