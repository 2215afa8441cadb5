/*
 * A camera and a viewer, in two processes: a stream of large frames, none of which is copied.
 *
 *      c++ -std=c++17 -O2 camera.cpp $(pkg-config --cflags --libs zeroport) -o camera && ./camera
 *
 *      camera ------> viewer       struct frame, with a buffer: its pixels
 *                                  struct frame, and then its pixels as a message
 *                                  struct film, after a second of the one, and of the other
 *      camera <------ viewer       struct seen
 *
 * The viewer starts the camera, which is this program with an argument. How many frames are on
 * their way is bounded by the answers: a slow viewer gets fewer frames, and not older ones.
 *
 * A buffer can be kept and given away again by who receives it, so it is sealed, and each frame
 * needs a fresh one, which the kernel has to fill with zeros. A message lies in memory that is used
 * again once it was released. The program shows what that makes.
 */
#include <sys/wait.h>

#include <chrono>
#include <cstdio>
#include <zeroport.hpp>

using std::chrono::steady_clock;

namespace {

/* ---- The messages ---- */

struct frame {
    static constexpr const char *zeroport_name = "camera.Frame";
    std::uint64_t number;
    std::int64_t taken_at; /* in ticks of the steady clock, which is the same in all processes */
    std::uint32_t width, height;
};

struct seen {
    static constexpr const char *zeroport_name = "camera.Seen";
    std::uint64_t number;
};

struct film {
    static constexpr const char *zeroport_name = "camera.Film";
    std::uint64_t frames;
    double seconds;
};

using pixels = zeroport::span<const std::uint32_t>;

/* What the camera sees: a pattern that is another one in each frame. */
std::uint32_t pixel(std::uint64_t number, std::size_t place) {
    return static_cast<std::uint32_t>(number * 0x9e3779b9 + place);
}

double seconds_since(steady_clock::time_point start) {
    return std::chrono::duration<double>(steady_clock::now() - start).count();
}

/* ---- The camera ---- */

constexpr std::uint32_t width = 1920, height = 1080;
constexpr std::uint64_t most_on_their_way = 4;

void draw(const frame &heading, zeroport::span<std::uint32_t> to) {
    std::size_t place = 0;
    for (std::uint32_t &one : to) one = pixel(heading.number, place++);
}

/* Takes frames for a second, and has them posted. */
template <class Post>
void take_film(zeroport::port &viewer, Post post) {
    const auto start = steady_clock::now();
    std::uint64_t taken = 0, answered = 0;
    const auto await_answer = [&] {
        viewer.recv().value().get<seen>().value();
        ++answered;
    };
    for (; seconds_since(start) < 1; ++taken) {
        if (taken - answered == most_on_their_way) await_answer();
        post(frame{taken, steady_clock::now().time_since_epoch().count(), width, height});
    }
    while (answered < taken) await_answer();
    viewer.post(film{taken, seconds_since(start)}).value();
}

void be_the_camera() {
    zeroport::port viewer = zeroport::parent_port().value();
    take_film(viewer, [&](const frame &heading) {
        auto buffer = zeroport::buffer::make(width * height * sizeof(std::uint32_t)).value();
        draw(heading, buffer.write_as<std::uint32_t>().value());
        viewer.post(heading, {std::move(buffer)}).value();
    });
    take_film(viewer, [&](const frame &heading) {
        viewer.post(heading).value();
        auto room = viewer.reserve_slice<std::uint32_t>(width * height).value();
        draw(heading, room.values());
        room.publish().value();
    });
}

/* ---- The viewer ---- */

void check(const frame &heading, pixels found) {
    bool is_whole = found.size() == std::size_t{heading.width} * heading.height;
    std::size_t place = 0;
    for (std::uint32_t one : found) is_whole &= one == pixel(heading.number, place++);
    if (!is_whole)
        throw std::runtime_error("frame " + std::to_string(heading.number) + " is broken");
}

/* Checks the pixels where the camera has written them. */
void view(zeroport::port &camera, const frame &heading, zeroport::message &message) {
    if (message.buffer_count() > 0) {
        const auto [buffer] = message.take_buffers<1>().value();
        check(heading, buffer.as<std::uint32_t>().value());
    } else {
        const zeroport::message next = camera.recv().value();
        check(heading, next.get_slice<std::uint32_t>().value());
    }
}

int be_the_viewer() {
    auto [camera, pid] = zeroport::spawn({"/proc/self/exe", "camera"}).value();
    const char *ways[] = {"in fresh buffers", "in messages, whose memory is used again"};
    std::size_t films = 0;
    std::uint64_t frames = 0;
    double age = 0;
    auto message = camera.recv();
    for (; message; message = camera.recv()) {
        if (const auto end = message->get<film>()) {
            if (end->frames != frames) throw std::runtime_error("a frame is missing");
            const double count = static_cast<double>(frames), rate = count / end->seconds;
            std::printf(
                "%.0f frames/s of %u x %u pixels, %.0f MB/s, %.1f ms from camera to viewer: %s\n",
                rate, width, height, rate * width * height * 4 / 1e6, age / count * 1e3,
                ways[films++ % 2]);
            frames = 0;
            age = 0;
            continue;
        }
        const frame heading = message->get<frame>().value();
        if (heading.number != frames++) throw std::runtime_error("a frame is missing");
        view(camera, heading, *message);
        age += seconds_since(steady_clock::time_point(steady_clock::duration(heading.taken_at)));
        camera.post(seen{heading.number}).value();
    }
    int status = 0;
    waitpid(pid, &status, 0);
    std::printf("camera: %s; every pixel was checked\n", message.text());
    return message.status() == ZP_CLOSED && status == 0 && films == 2 ? 0 : 1;
}

} // namespace

int main(int argc, char **) {
    try {
        if (argc == 1) return be_the_viewer();
        be_the_camera();
        return 0;
    } catch (const std::exception &error) {
        std::fprintf(stderr, "camera: %s\n", error.what());
        return 1;
    }
}
