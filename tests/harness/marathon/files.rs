//! The operations of a [`Marathon`] that need an open file.

use super::{FILE_BYTES_MAX, HANDLES_MAX, Marathon, Open, of};
use crate::{
    face::{Change, Face, Space},
    model::{Id, Kind, Node},
};

impl<F: Face> Marathon<F> {
    pub(super) fn an_open(&mut self) -> Option<Open> {
        if self.handles.is_empty() || self.chance(10) {
            let file = |(&id, node): (&Id, &Node)| (node.kind == Kind::File && node.nlink > 0).then_some(id);
            let files: Vec<Id> = self.model.nodes.iter().filter_map(file).collect();
            if files.is_empty() {
                return None;
            }
            let id = self.pick(&files);
            self.open(id);
        }
        let at = self.below(self.handles.len());
        Some(self.handles[at])
    }

    pub(super) fn open(&mut self, id: Id) {
        if self.handles.len() >= HANDLES_MAX {
            let at = self.below(HANDLES_MAX);
            self.close(at);
        }
        if !self.model.nodes.contains_key(&id) {
            return;
        }
        self.begin("open");
        let append = self.chance(10);
        let handle = self
            .face
            .open(of(&self.model, &self.handles, id), append)
            .unwrap_or_else(|error| panic!("open of {id}: error {error}"));
        self.handles.push(Open { handle, id, append });
    }

    pub(super) fn close(&mut self, at: usize) {
        self.begin("close");
        let open = self.handles.swap_remove(at);
        let found = self.face.close(open.handle);
        self.agree(&found, &Ok(()));
        if self.handle_of(open.id).is_none() && self.model.nodes[&open.id].nlink == 0 {
            self.model.forget(open.id);
        }
    }

    pub(super) fn open_or_close(&mut self) {
        if !self.handles.is_empty() && self.choice.coin() {
            let at = self.below(self.handles.len());
            return self.close(at);
        }
        self.an_open();
    }

    pub(super) fn write(&mut self) {
        let Some(open) = self.an_open() else { return };
        let size = self.model.nodes[&open.id].content.len();
        let offset = match self.choice.below(10) {
            _ if open.append => size,
            0..4 => size,
            4 => 0,
            5 => size + self.below(20_000),
            _ => self.below(size + 1),
        };
        let most = self.pick(&[50, 50, 500, 500, 3_000, 3_000, 3_000, 20_000]);
        let length = (1 + self.below(most)).min(FILE_BYTES_MAX.saturating_sub(offset));
        if length == 0 {
            return;
        }
        let bytes = if self.chance(10) { vec![0; length] } else { self.noise(length) };
        let now = self.begin("write");
        // An appending handle ignores the offset that it is given.
        let given = if open.append { 0 } else { offset as u64 };
        let found = self.face.write(open.handle, given, &bytes);
        let wanted = self.model.write(open.id, offset, &bytes, now);
        self.agree(&found, &wanted);
        self.check(open.id);
    }

    pub(super) fn truncate(&mut self) {
        let Some(open) = self.an_open() else { return };
        let size = self.model.nodes[&open.id].content.len();
        let size = match self.choice.below(6) {
            0 => 0,
            1 => self.below(2_100),
            2 => (size + self.below(20_000)).min(FILE_BYTES_MAX),
            _ => self.below(size + 1),
        };
        let now = self.begin("truncate");
        let found = self
            .face
            .change(of(&self.model, &self.handles, open.id), &Change { size: Some(size as u64), ..Change::default() });
        let wanted = self.model.truncate(open.id, size, now);
        self.agree(&found, &wanted);
        self.check(open.id);
    }

    pub(super) fn allocate(&mut self) {
        let Some(open) = self.an_open() else { return };
        let size = self.model.nodes[&open.id].content.len();
        let (offset, length) = (self.below(size + 2_000), 1 + self.below(20_000));
        let space = self.pick(&[
            Space::Reserve,
            Space::ReserveKeepSize,
            Space::Punch,
            Space::Punch,
            Space::Zero,
            Space::ZeroKeepSize,
        ]);
        let grows = matches!(space, Space::Reserve | Space::Zero);
        let zeroes = !matches!(space, Space::Reserve | Space::ReserveKeepSize);
        if grows && offset + length > FILE_BYTES_MAX {
            return;
        }
        let now = self.begin("fallocate");
        let found = self.face.allocate(open.handle, space, offset as u64, length as u64);
        let wanted = self.model.allocate(open.id, (offset, offset + length), zeroes, grows, now);
        self.agree(&found, &wanted);
        self.check(open.id);
    }

    pub(super) fn copy(&mut self) {
        let (Some(from), Some(to)) = (self.an_open(), self.an_open()) else { return };
        // The first may have been closed to open the second.
        if to.append || !self.handles.iter().any(|open| open.handle == from.handle) {
            return;
        }
        let source = self.model.nodes[&from.id].content.clone();
        let offset = self.below(source.len() + 100);
        let target = self.below(self.model.nodes[&to.id].content.len() + 5_000);
        let length = (1 + self.below(20_000)).min(FILE_BYTES_MAX.saturating_sub(target));
        let apart = offset + length <= target || target + length <= offset;
        // Within one file, what is copied beyond its end could itself be copied.
        let inside = offset + length <= source.len();
        if length == 0 || (from.id == to.id && !(apart && inside)) {
            return;
        }
        let now = self.begin("copy_file_range");
        let found = self.face.copy((from.handle, offset as u64), (to.handle, target as u64), length as u64);
        let bytes = &source[offset.min(source.len())..(offset + length).min(source.len())];
        let wanted = match bytes {
            [] => Ok(0),
            bytes => self.model.write(to.id, target, bytes, now).map(|()| bytes.len() as u64),
        };
        self.agree(&found, &wanted);
        self.check(to.id);
    }

    pub(super) fn seek(&mut self) {
        let Some(open) = self.an_open() else { return };
        let content = &self.model.nodes[&open.id].content;
        let size = content.len();
        let offset = self.choice.below(size as u64 + 10) as usize;
        let data = self.choice.coin();
        self.begin("lseek");
        let found = self.face.seek(open.handle, data, offset as u64);
        let content = &self.model.nodes[&open.id].content;
        let rest = content.get(offset..).unwrap_or_default();
        let right = match found {
            Err(error) => error == libc::ENXIO && (rest.is_empty() || (data && rest.iter().all(|&byte| byte == 0))),
            Ok(found) if !data => found as usize >= offset && found as usize <= size && !rest.is_empty(),
            Ok(found) => {
                (offset..size).contains(&(found as usize)) && content[offset..found as usize].iter().all(|&b| b == 0)
            }
        };
        assert!(right, "operation {}: seek of {} (data: {data}) from {offset} of {size}: {found:?}", self.ops, open.id);
        // A hole that is found is zeros up to the next data.
        if let (Ok(hole), false) = (found, data)
            && (hole as usize) < size
        {
            let next = self.face.seek(open.handle, true, hole).unwrap_or(size as u64);
            // A flush in between can have stored the zeros as data, which the next look then shows.
            let is_now_data = next == hole && self.face.seek(open.handle, false, hole).is_ok_and(|again| again > hole);
            let content = &self.model.nodes[&open.id].content;
            let zeros = content[hole as usize..next as usize].iter().all(|&byte| byte == 0);
            assert!(
                zeros && (next > hole || is_now_data),
                "operation {}: a hole of {} from {hole} to {next}",
                self.ops,
                open.id
            );
        }
    }

    pub(super) fn read(&mut self) {
        let Some(open) = self.an_open() else { return };
        let size = self.model.nodes[&open.id].content.len();
        let (offset, length) = (self.below(size + 100), 1 + self.below(20_000));
        self.begin("read");
        let found = self.face.read(open.handle, offset as u64, length).unwrap_or_else(|error| panic!("read: {error}"));
        let content = &self.model.nodes[&open.id].content;
        let wanted = &content[offset.min(size)..(offset + length).min(size)];
        assert!(found == wanted, "operation {}: read of {} at {offset}, {length} bytes", self.ops, open.id);
    }

    pub(super) fn sync(&mut self) {
        let open = if self.chance(70) { self.an_open() } else { None };
        self.begin("fsync");
        let found = match open {
            Some(open) => self.face.fsync(open.handle),
            None => self.face.sync_names(),
        };
        self.agree(&found, &Ok(()));
    }
}
