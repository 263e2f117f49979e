// Copyright The Muster Authors
// SPDX-License-Identifier: Apache-2.0

#define _GNU_SOURCE
#include "probe.h"

#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

struct word {
	const char *name;
	int value;
};

static const struct word families[] = {
    {"inet", AF_INET},     {"inet6", AF_INET6},     {"unix", AF_UNIX},
    {"packet", AF_PACKET}, {"netlink", AF_NETLINK}, {0},
};

static const struct word types[] = {
    {"stream", SOCK_STREAM},       {"dgram", SOCK_DGRAM}, {"raw", SOCK_RAW},
    {"seqpacket", SOCK_SEQPACKET}, {"rdm", SOCK_RDM},     {0},
};

static const struct word protocols[] = {
    {"icmp", IPPROTO_ICMP}, {"icmpv6", IPPROTO_ICMPV6}, {"tcp", IPPROTO_TCP},
    {"udp", IPPROTO_UDP},   {"sctp", IPPROTO_SCTP},     {0},
};

static int look_up(const struct word *table, const char *name)
{
	for (; table->name; table++)
		if (strcmp(table->name, name) == 0)
			return table->value;
	return -1;
}

static int protocol_number(const char *text)
{
	char *end;
	long number = strtol(text, &end, 10);

	return *text && !*end && number >= 0 && number <= 65535 ? (int)number
								: look_up(protocols, text);
}

static int op_socket(int argc, char **argv)
{
	int family = look_up(families, argv[1]), type = look_up(types, argv[2]);
	int protocol = argc > 3 ? protocol_number(argv[3]) : 0;

	if (family < 0 || type < 0 || protocol < 0)
		return PROBE_USAGE;
	return judge("socket", socket(family, type | SOCK_CLOEXEC, protocol));
}

struct address {
	struct sockaddr_storage storage;
	socklen_t length;
};

// parse_address reads A:PORT or [A]:PORT.
static int parse_address(const char *text, struct address *to)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&to->storage;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&to->storage;
	const char *colon = strrchr(text, ':');
	char host[64];
	size_t n;

	memset(to, 0, sizeof(*to));
	if (!colon)
		return -1;
	n = colon - text;
	if (n > 1 && text[0] == '[' && text[n - 1] == ']') {
		text++;
		n -= 2;
	}
	if (n >= sizeof(host))
		return -1;
	memcpy(host, text, n);
	host[n] = 0;
	v4->sin_port = htons(atoi(colon + 1));
	if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		to->length = sizeof(*v4);
		return 0;
	}
	v6->sin6_port = v4->sin_port;
	v6->sin6_family = AF_INET6;
	to->length = sizeof(*v6);
	return inet_pton(AF_INET6, host, &v6->sin6_addr) == 1 ? 0 : -1;
}

static int transport(const char *name)
{
	return strcmp(name, "tcp") == 0 ? SOCK_STREAM : strcmp(name, "udp") == 0 ? SOCK_DGRAM : -1;
}

static int op_connect(int argc, char **argv)
{
	struct address to;
	int fd, type = transport(argv[1]);

	(void)argc;
	if (type < 0 || parse_address(argv[2], &to) < 0)
		return PROBE_USAGE;
	fd = socket(to.storage.ss_family, type | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return judge("socket", -1);
	return judge("connect", connect(fd, (struct sockaddr *)&to.storage, to.length));
}

// bound makes a socket bound to a port of every address, or returns -1.
static int bound(int type, const char *port)
{
	struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
	int one = 1, fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	return bind(fd, (struct sockaddr *)&any, sizeof(any)) < 0 ? -1 : fd;
}

static int op_bind(int argc, char **argv)
{
	int type = transport(argv[1]);

	(void)argc;
	return type < 0 ? PROBE_USAGE : judge("bind", bound(type, argv[2]));
}

static int op_listen(int argc, char **argv)
{
	int fd = bound(SOCK_STREAM, argv[1]);

	(void)argc;
	return fd < 0 ? judge("bind", -1) : judge("listen", listen(fd, 1));
}

static int op_send_udp(int argc, char **argv)
{
	struct address to;
	int fd;

	(void)argc;
	if (parse_address(argv[1], &to) < 0)
		return PROBE_USAGE;
	fd = socket(to.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return judge("socket", -1);
	return judge("sendto",
		     sendto(fd, "probe", 5, 0, (struct sockaddr *)&to.storage, to.length));
}

// dns_query writes a question for the A record of name, two bytes into packet (the length of a TCP
// message), and returns its length without them, or -1.
static int dns_query(unsigned char *packet, size_t size, const char *name)
{
	static const unsigned char head[12] = {0x4d, 0x75, 1, 0, 0, 1};
	size_t at = 2 + sizeof(head);

	memcpy(packet + 2, head, sizeof(head));
	while (*name) {
		size_t n = strcspn(name, ".");

		if (n == 0 || n > 63 || at + n + 6 > size)
			return -1;
		packet[at++] = n;
		memcpy(packet + at, name, n);
		at += n;
		name += n + (name[n] == '.');
	}
	memcpy(packet + at, "\0\0\1\0\1", 5);
	at += 5 - 2;
	packet[0] = at >> 8;
	packet[1] = at;
	return at;
}

static int dns_answer(int fd)
{
	struct timeval patience = {.tv_sec = 5};
	char answer[1024];

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	return judge("the answer", recv(fd, answer, sizeof(answer), 0));
}

// op_send_dns sends one question and waits for an answer. Over TCP the message goes out in one
// segment.
static int op_send_dns(int argc, char **argv)
{
	struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(53)};
	int tcp = argc > 2 && strcmp(argv[2], "tcp") == 0;
	int connected = tcp || (argc > 2 && strcmp(argv[2], "connected") == 0);
	unsigned char packet[512];
	int fd, sent, length = dns_query(packet, sizeof(packet), argv[1]);

	if (length < 0 || (argc > 2 && !connected))
		return PROBE_USAGE;
	server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = socket(AF_INET, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return judge("socket", -1);
	if (connected && connect(fd, (struct sockaddr *)&server, sizeof(server)) < 0)
		return judge("connect", -1);
	if (tcp)
		sent = send(fd, packet, length + 2, MSG_NOSIGNAL);
	else if (connected)
		sent = send(fd, packet + 2, length, 0);
	else
		sent =
		    sendto(fd, packet + 2, length, 0, (struct sockaddr *)&server, sizeof(server));
	return sent < 0 ? judge("send", -1) : dns_answer(fd);
}

// op_unix_stream is a whole conversation over a local socket without a name in the file system.
static int op_unix_stream(int argc, char **argv)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t length = sizeof(address);
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), client, server;
	char byte;

	(void)argc;
	(void)argv;
	if (listener < 0)
		return judge("socket", -1);
	if (bind(listener, (struct sockaddr *)&address, sizeof(sa_family_t)) < 0)
		return judge("bind", -1);
	if (getsockname(listener, (struct sockaddr *)&address, &length) < 0 ||
	    listen(listener, 1) < 0)
		return judge("listen", -1);
	client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (client < 0 || connect(client, (struct sockaddr *)&address, length) < 0)
		return judge("connect", -1);
	server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (server < 0)
		return judge("accept", -1);
	if (send(client, "x", 1, MSG_NOSIGNAL) < 0)
		return judge("send", -1);
	return judge("recv", recv(server, &byte, 1, 0));
}

static int op_netlink(int argc, char **argv)
{
	struct sockaddr_nl address = {.nl_family = AF_NETLINK};
	struct {
		struct nlmsghdr head;
		struct ifinfomsg body;
	} ask = {
	    .head = {.nlmsg_len = sizeof(ask),
		     .nlmsg_type = RTM_GETLINK,
		     .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
	};
	char answer[4096];
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	(void)argc;
	(void)argv;
	if (fd < 0)
		return judge("socket", -1);
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return judge("bind", -1);
	if (sendto(fd, &ask, sizeof(ask), 0, (struct sockaddr *)&address, sizeof(address)) < 0)
		return judge("sendto", -1);
	return judge("recv", recv(fd, answer, sizeof(answer), 0));
}

const struct operation net_operations[] = {
    {"socket", 2, 3, op_socket},
    {"connect", 2, 2, op_connect},
    {"bind", 2, 2, op_bind},
    {"listen", 1, 1, op_listen},
    {"send-udp", 1, 1, op_send_udp},
    {"send-dns", 1, 2, op_send_dns},
    {"unix-stream", 0, 0, op_unix_stream},
    {"netlink", 0, 0, op_netlink},
    {0},
};
