/* A value that is not there: this ends the program, which says why. */
#include "zeroport.hpp"

int main() {
    zeroport::channel channel = zeroport::make_channel().value();
    channel.port1.try_recv().value();
    return 0;
}
