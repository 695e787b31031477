//! The exported directories as our own NFS server shows them. Files can be looked up, listed, read, made, written and resized; a request
//! that changes something is answered when it is on the disk. Directories, links, removing and renaming are refused (`NFS3ERR_NOTSUPP`).
//!
//! A handle is the number of the export and of the inode, so it means the same file on every node that mounts the file system.

use super::nfs_own::Export;
use nfs3_server::nfs3_types::nfs3::{
    createverf3, fattr3, filename3, ftype3, nfspath3, nfsstat3, nfstime3, sattr3, set_gid3,
    set_mode3, set_mtime, set_size3, set_uid3, specdata3, stable_how,
};
use nfs3_server::nfs3_types::xdr_codec::Opaque;
use nfs3_server::vfs::{
    DirEntryPlus, FileHandle, NextResult, NfsFileSystem, NfsReadFileSystem, ReadDirPlusIterator,
};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// Mode of a file for which the client asks none.
const MODE: u32 = 0o644;
/// Bits of a mode that can be set.
const MODE_BITS: u32 = 0o7777;

/// A file or directory of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Handle([u8; 16]);

impl Handle {
    fn new(export: u64, inode: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&export.to_be_bytes());
        bytes[8..].copy_from_slice(&inode.to_be_bytes());
        Self(bytes)
    }

    fn number(self, from: usize) -> u64 {
        let bytes = self.0.get(from..from + 8).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u64::from_be_bytes)
    }

    fn export(self) -> u64 {
        self.number(0)
    }

    fn inode(self) -> u64 {
        self.number(8)
    }
}

impl FileHandle for Handle {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

/// All exports. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Tree(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Directory with one file for each export.
    exports: PathBuf,
    /// Where a handle was found last.
    known: Mutex<BTreeMap<Handle, PathBuf>>,
}

/// What a handle stands for.
struct Place {
    export: Export,
    path: PathBuf,
}

impl Tree {
    pub(super) fn new(exports: PathBuf) -> Self {
        Self(Arc::new(Inner { exports, known: Mutex::default() }))
    }

    /// Runs work that waits for the disk.
    async fn off<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, nfsstat3> + Send + 'static,
    ) -> Result<T, nfsstat3> {
        let inner = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.unwrap_or(Err(nfsstat3::NFS3ERR_SERVERFAULT))
    }
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, BTreeMap<Handle, PathBuf>> {
        // A place is looked at before it is believed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exports(&self) -> Result<Vec<Export>, nfsstat3> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.exports).map_err(answer)? {
            let path = entry.map_err(answer)?.path();
            if path.extension() == Some(OsStr::new("new")) {
                continue;
            }
            match fs::read_to_string(&path) {
                Ok(text) => {
                    let export = serde_json::from_str(&text);
                    all.push(export.map_err(|_| nfsstat3::NFS3ERR_SERVERFAULT)?);
                }
                // Unexported meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(answer(error)),
            }
        }
        Ok(all)
    }

    /// The handle of what is at `path`.
    fn meet(&self, export: u64, path: &Path) -> Result<(Handle, Metadata), nfsstat3> {
        let found = fs::symlink_metadata(path).map_err(answer)?;
        let handle = Handle::new(export, found.ino());
        self.known().insert(handle, path.to_owned());
        Ok((handle, found))
    }

    fn place(&self, handle: Handle) -> Result<Place, nfsstat3> {
        let exports = self.exports()?;
        // Not exported now: it is moving, or is about to be exported here.
        let export = exports.into_iter().find(|e| e.id == handle.export());
        let export = export.ok_or(nfsstat3::NFS3ERR_JUKEBOX)?;
        let is_at = |path: &Path| match fs::symlink_metadata(path) {
            Ok(found) => Ok(found.ino() == handle.inode()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(answer(error)),
        };
        let known = self.known().get(&handle).cloned();
        if let Some(path) = known
            && path.starts_with(&export.directory)
            && is_at(&path)?
        {
            return Ok(Place { export, path });
        }
        let path = find(&export.directory, handle.inode())?.ok_or(nfsstat3::NFS3ERR_STALE)?;
        self.known().insert(handle, path.clone());
        Ok(Place { export, path })
    }

    /// As [`Self::place`], to change something.
    fn place_to_change(&self, handle: Handle) -> Result<Place, nfsstat3> {
        let place = self.place(handle)?;
        if place.export.read_only { Err(nfsstat3::NFS3ERR_ROFS) } else { Ok(place) }
    }
}

/// Looks for an inode below `top`, on its file system: the server that gave the handle out was another one.
fn find(top: &Path, inode: u64) -> Result<Option<PathBuf>, nfsstat3> {
    let own = fs::symlink_metadata(top).map_err(answer)?;
    if own.ino() == inode {
        return Ok(Some(top.to_owned()));
    }
    let mut todo = vec![top.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).map_err(answer)? {
            let path = entry.map_err(answer)?.path();
            let found = match fs::symlink_metadata(&path) {
                Ok(found) => found,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(answer(error)),
            };
            if found.dev() != own.dev() {
                continue;
            }
            if found.ino() == inode {
                return Ok(Some(path));
            }
            if found.is_dir() {
                todo.push(path);
            }
        }
    }
    Ok(None)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn answer(error: io::Error) -> nfsstat3 {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => nfsstat3::NFS3ERR_NOENT,
        Some(Errno::EEXIST) => nfsstat3::NFS3ERR_EXIST,
        Some(Errno::ENOTDIR) => nfsstat3::NFS3ERR_NOTDIR,
        Some(Errno::EISDIR) => nfsstat3::NFS3ERR_ISDIR,
        Some(Errno::ELOOP | Errno::EINVAL) => nfsstat3::NFS3ERR_INVAL,
        Some(Errno::EACCES) => nfsstat3::NFS3ERR_ACCES,
        Some(Errno::EPERM) => nfsstat3::NFS3ERR_PERM,
        Some(Errno::ENOSPC) => nfsstat3::NFS3ERR_NOSPC,
        Some(Errno::EFBIG) => nfsstat3::NFS3ERR_FBIG,
        Some(Errno::EROFS) => nfsstat3::NFS3ERR_ROFS,
        Some(Errno::ENAMETOOLONG) => nfsstat3::NFS3ERR_NAMETOOLONG,
        // The process that serves the file system below has died; the cluster mounts it again.
        Some(Errno::ENOTCONN | Errno::ECONNABORTED) => nfsstat3::NFS3ERR_JUKEBOX,
        _ => nfsstat3::NFS3ERR_IO,
    }
}

fn file_name<'a>(name: &'a filename3<'_>) -> Result<&'a OsStr, nfsstat3> {
    let bytes: &[u8] = name.as_ref();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
        return Err(nfsstat3::NFS3ERR_INVAL);
    }
    Ok(OsStr::from_bytes(bytes))
}

fn time(seconds: i64, nanoseconds: i64) -> nfstime3 {
    let seconds = u32::try_from(seconds).unwrap_or(0);
    nfstime3 { seconds, nseconds: u32::try_from(nanoseconds).unwrap_or(0) }
}

fn attributes(export: u64, found: &Metadata) -> fattr3 {
    let kind = found.file_type();
    let type_ = if kind.is_dir() {
        ftype3::NF3DIR
    } else if kind.is_symlink() {
        ftype3::NF3LNK
    } else {
        ftype3::NF3REG
    };
    fattr3 {
        type_,
        mode: found.mode() & MODE_BITS,
        nlink: u32::try_from(found.nlink()).unwrap_or(u32::MAX),
        uid: found.uid(),
        gid: found.gid(),
        size: found.size(),
        used: found.blocks().saturating_mul(512),
        rdev: specdata3::default(),
        fsid: export,
        fileid: found.ino(),
        atime: time(found.atime(), found.atime_nsec()),
        mtime: time(found.mtime(), found.mtime_nsec()),
        ctime: time(found.ctime(), found.ctime_nsec()),
    }
}

fn open_to_write(path: &Path) -> Result<File, nfsstat3> {
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(nix::libc::O_NOFOLLOW);
    options.open(path).map_err(answer)
}

/// Changes what the client names and waits until that is on the disk.
fn change(file: &File, wish: &sattr3) -> Result<(), nfsstat3> {
    if matches!(wish.uid, set_uid3::Some(_)) || matches!(wish.gid, set_gid3::Some(_)) {
        return Err(nfsstat3::NFS3ERR_PERM);
    }
    if let set_mode3::Some(mode) = wish.mode {
        file.set_permissions(Permissions::from_mode(mode & MODE_BITS)).map_err(answer)?;
    }
    if let set_size3::Some(size) = wish.size {
        file.set_len(size).map_err(answer)?;
    }
    if !matches!(wish.mtime, set_mtime::DONT_CHANGE) {
        file.set_modified(SystemTime::now()).map_err(answer)?;
    }
    file.sync_all().map_err(answer)
}

impl NfsReadFileSystem for Tree {
    type Handle = Handle;

    fn root_dir(&self) -> Handle {
        Handle::new(0, 0)
    }

    async fn lookup(&self, dirid: &Handle, name: &filename3<'_>) -> Result<Handle, nfsstat3> {
        let (directory, name) = (*dirid, file_name(name)?.to_owned());
        self.off(move |tree| {
            let place = tree.place(directory)?;
            tree.meet(place.export.id, &place.path.join(name)).map(|(handle, _)| handle)
        })
        .await
    }

    async fn lookup_by_path(&self, path: &str) -> Result<Handle, nfsstat3> {
        let wanted = Path::new("/").join(path);
        self.off(move |tree| {
            let export = tree.exports()?.into_iter().find(|e| e.directory == wanted);
            let export = export.ok_or(nfsstat3::NFS3ERR_NOENT)?;
            tree.meet(export.id, &export.directory).map(|(handle, _)| handle)
        })
        .await
    }

    async fn getattr(&self, id: &Handle) -> Result<fattr3, nfsstat3> {
        let handle = *id;
        self.off(move |tree| {
            let place = tree.place(handle)?;
            let found = fs::symlink_metadata(&place.path).map_err(answer)?;
            Ok(attributes(place.export.id, &found))
        })
        .await
    }

    async fn read(
        &self,
        id: &Handle,
        offset: u64,
        count: u32,
    ) -> Result<(Vec<u8>, bool), nfsstat3> {
        let handle = *id;
        self.off(move |tree| {
            let mut options = OpenOptions::new();
            options.read(true).custom_flags(nix::libc::O_NOFOLLOW);
            let file = options.open(tree.place(handle)?.path).map_err(answer)?;
            let left = file.metadata().map_err(answer)?.len().saturating_sub(offset);
            let wanted = left.min(u64::from(count));
            let wanted = usize::try_from(wanted).map_err(|_| nfsstat3::NFS3ERR_INVAL)?;
            let mut bytes = vec![0; wanted];
            file.read_exact_at(&mut bytes, offset).map_err(answer)?;
            Ok((bytes, left <= u64::from(count)))
        })
        .await
    }

    async fn readdirplus(
        &self,
        dirid: &Handle,
        cookie: u64,
    ) -> Result<impl ReadDirPlusIterator<Handle>, nfsstat3> {
        let handle = *dirid;
        let entries = self.off(move |tree| list(tree, handle)).await?;
        Ok(Listing(
            entries.into_iter().filter(|e| e.cookie > cookie).collect::<Vec<_>>().into_iter(),
        ))
    }

    async fn readlink(&self, id: &Handle) -> Result<nfspath3<'_>, nfsstat3> {
        let handle = *id;
        self.off(move |tree| {
            let to = fs::read_link(tree.place(handle)?.path).map_err(answer)?;
            Ok(nfspath3(Opaque::owned(to.into_os_string().into_vec())))
        })
        .await
    }
}

fn list(tree: &Inner, directory: Handle) -> Result<Vec<DirEntryPlus<Handle>>, nfsstat3> {
    let place = tree.place(directory)?;
    let mut names = Vec::new();
    for entry in fs::read_dir(&place.path).map_err(answer)? {
        names.push(entry.map_err(answer)?.file_name());
    }
    names.sort();
    let mut entries = Vec::new();
    for (name, cookie) in names.into_iter().zip(1..) {
        let (handle, found) = tree.meet(place.export.id, &place.path.join(&name))?;
        entries.push(DirEntryPlus {
            fileid: found.ino(),
            name: filename3(Opaque::owned(name.into_vec())),
            cookie,
            name_attributes: Some(attributes(place.export.id, &found)),
            name_handle: Some(handle),
        });
    }
    Ok(entries)
}

/// The rest of a directory's entries.
struct Listing(std::vec::IntoIter<DirEntryPlus<Handle>>);

impl ReadDirPlusIterator<Handle> for Listing {
    async fn next(&mut self) -> NextResult<DirEntryPlus<Handle>> {
        self.0.next().map_or(NextResult::Eof, NextResult::Ok)
    }
}

impl NfsFileSystem for Tree {
    async fn setattr(&self, id: &Handle, setattr: sattr3) -> Result<fattr3, nfsstat3> {
        let handle = *id;
        self.off(move |tree| {
            let place = tree.place_to_change(handle)?;
            let file = open_to_write(&place.path)?;
            change(&file, &setattr)?;
            Ok(attributes(place.export.id, &file.metadata().map_err(answer)?))
        })
        .await
    }

    async fn write(
        &self,
        id: &Handle,
        offset: u64,
        data: &[u8],
        _stable: stable_how,
    ) -> Result<(fattr3, stable_how), nfsstat3> {
        let (handle, data) = (*id, data.to_vec());
        self.off(move |tree| {
            let place = tree.place_to_change(handle)?;
            let file = open_to_write(&place.path)?;
            file.write_all_at(&data, offset).map_err(answer)?;
            // Whatever the client asks: an acknowledged record must survive the death of this node.
            file.sync_all().map_err(answer)?;
            let found = file.metadata().map_err(answer)?;
            Ok((attributes(place.export.id, &found), stable_how::FILE_SYNC))
        })
        .await
    }

    async fn create(
        &self,
        dirid: &Handle,
        filename: &filename3<'_>,
        attr: sattr3,
    ) -> Result<(Handle, fattr3), nfsstat3> {
        let (directory, name) = (*dirid, file_name(filename)?.to_owned());
        self.off(move |tree| {
            let place = tree.place_to_change(directory)?;
            let path = place.path.join(name);
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false);
            options.mode(MODE).custom_flags(nix::libc::O_NOFOLLOW);
            let file = options.open(&path).map_err(answer)?;
            change(&file, &attr)?;
            // The name, where that is not on the disk with the file already.
            File::open(&place.path).and_then(|d| d.sync_all()).map_err(answer)?;
            let (handle, found) = tree.meet(place.export.id, &path)?;
            Ok((handle, attributes(place.export.id, &found)))
        })
        .await
    }

    async fn create_exclusive(
        &self,
        _dirid: &Handle,
        _filename: &filename3<'_>,
        _createverf: createverf3,
    ) -> Result<Handle, nfsstat3> {
        Err(nfsstat3::NFS3ERR_NOTSUPP)
    }

    async fn mkdir(
        &self,
        _dirid: &Handle,
        _dirname: &filename3<'_>,
    ) -> Result<(Handle, fattr3), nfsstat3> {
        Err(nfsstat3::NFS3ERR_NOTSUPP)
    }

    async fn remove(&self, _dirid: &Handle, _filename: &filename3<'_>) -> Result<(), nfsstat3> {
        Err(nfsstat3::NFS3ERR_NOTSUPP)
    }

    async fn rename<'a>(
        &self,
        _from_dirid: &Handle,
        _from_filename: &filename3<'a>,
        _to_dirid: &Handle,
        _to_filename: &filename3<'a>,
    ) -> Result<(), nfsstat3> {
        Err(nfsstat3::NFS3ERR_NOTSUPP)
    }

    async fn symlink<'a>(
        &self,
        _dirid: &Handle,
        _linkname: &filename3<'a>,
        _symlink: &nfspath3<'a>,
        _attr: &sattr3,
    ) -> Result<(Handle, fattr3), nfsstat3> {
        Err(nfsstat3::NFS3ERR_NOTSUPP)
    }

    async fn commit(&self, id: &Handle, _offset: u64, _count: u32) -> Result<(), nfsstat3> {
        let handle = *id;
        self.off(move |tree| {
            let file = open_to_write(&tree.place(handle)?.path)?;
            file.sync_all().map_err(answer)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(dir: &Path, read_only: bool) -> Tree {
        let (exports, srv) = (dir.join("exports"), dir.join("srv"));
        fs::create_dir_all(&exports).unwrap();
        fs::create_dir_all(&srv).unwrap();
        let export = Export { directory: srv, id: 5, read_only };
        fs::write(exports.join("one"), serde_json::to_string(&export).unwrap()).unwrap();
        Tree::new(exports)
    }

    async fn root(tree: &Tree, dir: &Path) -> Handle {
        let path = dir.join("srv").display().to_string();
        tree.lookup_by_path(path.trim_start_matches('/')).await.unwrap()
    }

    #[tokio::test]
    async fn a_handle_means_the_same_file_to_the_next_server() {
        let dir = tempfile::tempdir().unwrap();
        let first = tree(dir.path(), false);
        let top = root(&first, dir.path()).await;
        let name = filename3(Opaque::borrowed(b"records"));
        let (handle, _) = first.create(&top, &name, sattr3::default()).await.unwrap();
        let (after, how) = first.write(&handle, 3, b"abc", stable_how::UNSTABLE).await.unwrap();
        assert_eq!((after.size, how), (6, stable_how::FILE_SYNC));
        let second = tree(dir.path(), false);
        assert_eq!(second.read(&handle, 3, 100).await.unwrap(), (b"abc".to_vec(), true));
        assert_eq!(second.lookup(&top, &name).await.unwrap(), handle);
        let gone = Handle::new(5, u64::MAX);
        assert_eq!(second.getattr(&gone).await.unwrap_err(), nfsstat3::NFS3ERR_STALE);
    }

    #[tokio::test]
    async fn names_do_not_lead_out_and_read_only_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let tree = tree(dir.path(), true);
        let top = root(&tree, dir.path()).await;
        for name in ["..", "a/b", ""] {
            let name = filename3(Opaque::borrowed(name.as_bytes()));
            assert_eq!(tree.lookup(&top, &name).await.unwrap_err(), nfsstat3::NFS3ERR_INVAL);
        }
        let name = filename3(Opaque::borrowed(b"x"));
        let made = tree.create(&top, &name, sattr3::default()).await;
        assert_eq!(made.unwrap_err(), nfsstat3::NFS3ERR_ROFS);
    }

    #[tokio::test]
    async fn what_is_not_exported_now_is_asked_again_later() {
        let dir = tempfile::tempdir().unwrap();
        let tree = tree(dir.path(), false);
        let top = root(&tree, dir.path()).await;
        fs::remove_file(dir.path().join("exports/one")).unwrap();
        assert_eq!(tree.getattr(&top).await.unwrap_err(), nfsstat3::NFS3ERR_JUKEBOX);
    }
}
