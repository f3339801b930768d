/* What only the host's build has: a socket to connect. */
#ifndef TD_HOST_H
#define TD_HOST_H

#include <stdint.h>

int td_host_connect(uint16_t port); /* to 127.0.0.1; 0: connected */

#endif
