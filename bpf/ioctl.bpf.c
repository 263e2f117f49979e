//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Class file: what filesystems let an ioctl change of a file or a directory, its flags (chattr) first of all. A
// descriptor that was opened for reading is enough for most.

#define IOCTL_DIRECTION(command) ((command) >> 30)
#define IOCTL_READ 2
#define IOCTL_TYPE(command) (((command) >> 8) & 0xff)
#define IOCTL_NUMBER(command) ((command)&0xff)

/* Of linux/fs.h and fiemap.h, fscrypt.h, fsverity.h, btrfs.h. */
#define NUMBER_FIEMAP 11 /* 'f' */
#define NUMBER_PASSWORD_SALT 20
#define NUMBER_ENCRYPTION_POLICY 21
#define NUMBER_ENCRYPTION_POLICY_EX 22
#define NUMBER_MEASURE_VERITY 134
#define NUMBER_VERITY_METADATA 135
#define NUMBER_FREEZE 119 /* 'X'; thaw and trim come next */
#define NUMBER_TRIM 121
#define NUMBER_TREE_SEARCH 17 /* btrfs */
#define NUMBER_INO_LOOKUP 18
#define NUMBER_SPACE_INFO 20
#define NUMBER_DEDUPE 54 /* of the file that is read */
#define TYPE_BTRFS 0x94
#define TYPE_F2FS 0xf5

static __always_inline bool ioctl_of_f_reads(u32 number)
{
	switch (number) {
	case NUMBER_FIEMAP:
	case NUMBER_PASSWORD_SALT:
	case NUMBER_ENCRYPTION_POLICY:
	case NUMBER_ENCRYPTION_POLICY_EX:
	case NUMBER_MEASURE_VERITY:
	case NUMBER_VERITY_METADATA:
		return true;
	default:
		return false;
	}
}

/* Commands of the filesystems' own letters that only fetch something say so themselves, nearly all; commands of every
 * other letter are those of terminals, sockets and descriptors. */
static __always_inline bool ioctl_changes(u32 command)
{
	u32 number = IOCTL_NUMBER(command);

	if (IOCTL_DIRECTION(command) == IOCTL_READ)
		return false;
	switch (IOCTL_TYPE(command)) {
	case 'f':
		return !ioctl_of_f_reads(number);
	case 'X':
		return number < NUMBER_FREEZE || number > NUMBER_TRIM;
	case TYPE_BTRFS:
		return number != NUMBER_TREE_SEARCH && number != NUMBER_INO_LOOKUP && number != NUMBER_SPACE_INFO &&
		       number != NUMBER_DEDUPE;
	case 'v':
	case TYPE_F2FS:
		return true;
	default:
		return false;
	}
}

static __always_inline int ioctl_asked(struct file *file, u32 command)
{
	u32 kind;

	if (!ioctl_changes(command) || !held_is_object(file))
		return 0;
	kind = file->f_inode->i_mode & S_IFMT;
	if (kind != S_IFREG && kind != S_IFDIR)
		return 0;
	return file_one(file->f_path.mnt, file->f_path.dentry, OP_IOCTL, HOOK_FILE_IOCTL, false);
}

SEC("lsm/file_ioctl")
int BPF_PROG(file_ioctl, struct file *file, unsigned int command, unsigned long argument, int ret)
{
	return ret ? ret : ioctl_asked(file, command);
}

/* Of 32-bit programs; kernels without it ask the other one. */
SEC("lsm/file_ioctl_compat")
int BPF_PROG(file_ioctl_compat, struct file *file, unsigned int command, unsigned long argument, int ret)
{
	return ret ? ret : ioctl_asked(file, command);
}
