# The C library: builds and installs it, with nothing beyond cargo, a C compiler and make.
#
#     make                                builds the library, static and shared
#     make check                          runs the tests of the C interface
#     make install PREFIX=$HOME/.local    installs it (without PREFIX: into /usr/local)
#     make uninstall PREFIX=$HOME/.local  removes what that has put there
#     make clean                          removes what was built
#
# What is built once needs no cargo to be installed: make && sudo make install.
# Others have their say: DESTDIR (a staging folder before all paths), LIBDIR, INCLUDEDIR, CARGO, CC,
# LDFLAGS, INSTALL, CARGO_TARGET_DIR, CARGO_BUILD_TARGET. (For Rust programs cargo is enough.)

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
CARGO ?= cargo
INSTALL ?= install
CARGO_TARGET_DIR ?= target

version := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
# It is raised when programs that were linked before can no longer run with the library.
soname := libzeroport.so.0
shared := libzeroport.so.$(version)
headers := include/zeroport.h include/zeroport.hpp
private_libs := $(shell cat ffi/install/private-libs)

build := $(CARGO_TARGET_DIR)/c
sources := $(shell find src ffi/src -name '*.rs') Cargo.toml Cargo.lock ffi/Cargo.toml

# The installed folder may be moved as a whole: pkg-config and CMake find PREFIX from where their own
# files lie, by going up as many folders as there are in their path. (Not so if LIBDIR is elsewhere.)
space := $(subst ,, )
up = $(subst $(space),/,$(patsubst %,..,$(subst /, ,$(1))))
lib := $(patsubst $(PREFIX)/%,%,$(LIBDIR))
ifeq ($(lib),$(LIBDIR))
prefix_of_pc := $(PREFIX)
prefix_of_cmake := $(PREFIX)
else
prefix_of_pc := $${pcfiledir}/$(call up,$(lib)/pkgconfig)
prefix_of_cmake := $${CMAKE_CURRENT_LIST_DIR}/$(call up,$(lib)/cmake/zeroport)
endif
from_prefix = $(patsubst $(PREFIX)/%,$${$(1)}/%,$(2))
# $(1): the name of the prefix in that file; $(2): its value
fill = sed -e 's|@PREFIX@|$(2)|' -e 's|@LIBDIR@|$(call from_prefix,$(1),$(LIBDIR))|' \
	-e 's|@INCLUDEDIR@|$(call from_prefix,$(1),$(INCLUDEDIR))|' -e 's|@VERSION@|$(version)|' \
	-e 's|@SONAME@|$(soname)|' -e 's|@PRIVATE_LIBS@|$(private_libs)|'

to_lib := $(DESTDIR)$(LIBDIR)
to_include := $(DESTDIR)$(INCLUDEDIR)
to_pkgconfig := $(to_lib)/pkgconfig
to_cmake := $(to_lib)/cmake/zeroport

.PHONY: all check install uninstall clean
all: $(build)/libzeroport.a $(build)/$(shared)

# By itself: beside an rlib nothing would be optimised across crates.
$(build)/libzeroport.a: $(sources)
	$(CARGO) rustc --locked --profile dist --target-dir '$(CARGO_TARGET_DIR)' \
		--package zeroport-ffi --lib --crate-type staticlib
	mkdir -p '$(build)'
	cp '$(CARGO_TARGET_DIR)/$(CARGO_BUILD_TARGET)/dist/libzeroport_ffi.a' '$@'

$(build)/$(shared): $(build)/libzeroport.a ffi/link-shared ffi/zeroport.map ffi/install/private-libs
	CC='$(CC)' LDFLAGS='$(LDFLAGS)' ffi/link-shared '$<' '$@' $(soname)

check:
	$(CARGO) test --locked --target-dir '$(CARGO_TARGET_DIR)' --package zeroport-ffi

install: all
	$(INSTALL) -d '$(to_include)' '$(to_lib)' '$(to_pkgconfig)' '$(to_cmake)'
	$(INSTALL) -m 644 $(headers) '$(to_include)'
	$(INSTALL) -m 644 '$(build)/libzeroport.a' '$(to_lib)'
	$(INSTALL) -m 755 '$(build)/$(shared)' '$(to_lib)'
	ln -sf $(shared) '$(to_lib)/$(soname)'
	ln -sf $(soname) '$(to_lib)/libzeroport.so'
	$(call fill,prefix,$(prefix_of_pc)) ffi/install/zeroport.pc.in >'$(to_pkgconfig)/zeroport.pc'
	for file in zeroport-config.cmake zeroport-config-version.cmake; do \
		$(call fill,_zeroport_prefix,$(prefix_of_cmake)) ffi/install/$$file.in >'$(to_cmake)'/$$file || exit; \
	done

uninstall:
	rm -f '$(to_include)/zeroport.h' '$(to_include)/zeroport.hpp'
	rm -f '$(to_lib)/libzeroport.a' '$(to_lib)/libzeroport.so'
	rm -f '$(to_lib)/$(soname)' '$(to_lib)/$(shared)'
	rm -f '$(to_pkgconfig)/zeroport.pc'
	rm -rf '$(to_cmake)'

clean:
	rm -rf '$(build)'
