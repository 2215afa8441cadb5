/*
 * Children, servers and who calls them, from C++. As a child it echoes one message with its
 * argument.
 */
#include "expect.hpp"

#include <poll.h>
#include <sys/wait.h>

#include <thread>

using namespace std::chrono_literals;

static int child(const std::string &argument) {
    zeroport::port parent = GET(zeroport::parent_port());
    EXPECT(ZP_REFUSED, zeroport::parent_port());
    const char *given = std::getenv("GIVEN");
    const std::string text(GET(parent.recv()).text());
    EXPECT(ZP_OK, parent.post_bytes(text + " " + argument + " " + (given ? given : "-")));
    return 7;
}

static void spawns(const char *self) {
    const std::vector<std::string> given{"GIVEN=value"}, wrong{"no value"};
    for (const auto *environment :
         {static_cast<const std::vector<std::string> *>(nullptr), &given}) {
        zeroport::child child = GET(zeroport::spawn({self, "argument"}, {}, environment));
        EXPECT(ZP_OK, child.port.post_bytes("hello"));
        HOLDS(GET(child.port.recv()).text() ==
              (environment ? "hello argument value" : "hello argument -"));
        EXPECT(ZP_CLOSED, child.port.recv()); /* its port object has gone */
        int status;
        HOLDS(waitpid(child.pid, &status, 0) == child.pid && WEXITSTATUS(status) == 7);
    }
    const auto nobody = zeroport::spawn({"/nonexistent/program"});
    EXPECT(ZP_SYSTEM, nobody);
    HOLDS(nobody.errno_value() == ENOENT);
    EXPECT(ZP_BAD_ARGUMENT, zeroport::spawn({}));
    EXPECT(ZP_BAD_ARGUMENT, zeroport::spawn({self}, {}, &wrong));
    zeroport::channel_options options;
    options.trust = 9;
    EXPECT(ZP_BAD_ARGUMENT, zeroport::spawn({self}, options));
    EXPECT(ZP_BAD_ARGUMENT, zeroport::make_channel(options));
    EXPECT(ZP_NO_PARENT, zeroport::parent_port());
}

static void expect_ourselves(const zeroport::credentials &found) {
    HOLDS(found.uid == geteuid() && found.gid == getegid() && found.pid == getpid());
}

/* One program calls, in a thread of its own; the other one decides. */
template <class Call, class Decide>
static void meet(zeroport::server &server, Call call, Decide decide) {
    std::thread calling(call);
    pollfd waits{GET(server.fd()), POLLIN, 0};
    HOLDS(poll(&waits, 1, 50000) == 1);
    decide(GET(server.accept()));
    calling.join();
}

static void servers(const std::string &address) {
    EXPECT(ZP_NO_SERVER, zeroport::connect(address));
    EXPECT(ZP_BAD_ADDRESS, zeroport::server::bind(""));
    zeroport::server server = GET(zeroport::server::bind(address));
    EXPECT(ZP_IN_USE, zeroport::server::bind(address));
    EXPECT(ZP_EMPTY, server.accept(zeroport::no_wait));
    EXPECT(ZP_EMPTY, server.accept(1ms));
    EXPECT(ZP_TIMED_OUT, zeroport::connect(address, 1ms));
    EXPECT(ZP_TIMED_OUT, zeroport::connect(address, zeroport::no_wait));
    EXPECT(ZP_HUNG_UP, GET(server.accept()).admit());
    EXPECT(ZP_HUNG_UP, GET(server.accept()).admit());

    zeroport::port ours;
    meet(
        server,
        [&] {
            zeroport::connection connection = GET(zeroport::connect(address));
            expect_ourselves(connection.server);
            EXPECT(ZP_OK, connection.port.post_bytes("hello"));
        },
        [&](zeroport::caller caller) {
            expect_ourselves(caller.credentials());
            zeroport::channel_options options;
            options.wait = 9;
            EXPECT(ZP_BAD_ARGUMENT, caller.admit(options));
            options.wait = ZP_WAIT_SLEEP;
            ours = GET(caller.admit(options));
            HOLDS(!caller);
            EXPECT(ZP_BAD_HANDLE, caller.admit());
        });
    HOLDS(GET(ours.recv()).text() == "hello" && GET(ours.info()).is_trusted == 0);
    const auto refused = [&] { EXPECT(ZP_REFUSED, zeroport::connect(address, 50s)); };
    meet(server, refused, [](zeroport::caller caller) { EXPECT(ZP_OK, caller.refuse()); });
    meet(server, refused, [](zeroport::caller) {}); /* it goes */

    zeroport::server moved = std::move(server);
    EXPECT(ZP_BAD_HANDLE, server.accept(zeroport::no_wait));
    EXPECT(ZP_OK, moved.close());
    EXPECT(ZP_NO_SERVER, zeroport::connect(address));
}

int main(int argc, char **argv) {
    alarm(55); /* whoever is stuck ends before the test that waits for it */
    if (argc > 1) return child(argv[1]);
    HOLDS(elsewhere() == ZP_VERSION);
    spawns(argv[0]);
    servers("@zeroport-cpp-" + std::to_string(getpid()));
    return 0;
}
