//! The GPUs that the kernel sees on the PCI bus, whatever the driver says.

use std::collections::BTreeSet;

use crate::reading::Roots;

/// NVIDIA's vendor number.
const VENDOR: &str = "0x10de";
/// PCI classes of graphics: VGA controller, 3D controller (the class's lowest byte is the programming interface).
const CLASSES: [&str; 2] = ["0x0300", "0x0302"];

/// Addresses of NVIDIA's GPUs as sysfs has them (`0000:3b:00.0`); `None` where there is no such folder, as in many
/// containers: nothing can be concluded from it then.
pub fn gpus_on_bus(roots: &Roots) -> Option<BTreeSet<String>> {
    let folder = roots.sys.join("bus/pci/devices");
    let names = std::fs::read_dir(folder).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let read =
        |address: &str, file: &str| roots.sys_file(&format!("bus/pci/devices/{address}/{file}")).unwrap_or_default();
    let is_gpu = |address: &String| {
        let class = read(address, "class");
        read(address, "vendor").trim() == VENDOR && CLASSES.iter().any(|wanted| class.starts_with(wanted))
    };
    Some(names.filter(is_gpu).collect())
}

/// NVML's form of an address (`00000000:3B:00.0`) in the kernel's.
///
/// The domain has eight digits there and at least four here.
pub fn kernel_address(nvml: &str) -> String {
    let lower = nvml.to_lowercase();
    match lower.split_once(':') {
        Some((domain, rest)) if domain.len() > 4 && domain[..domain.len() - 4].chars().all(|digit| digit == '0') => {
            format!("{}:{rest}", &domain[domain.len() - 4..])
        }
        _ => lower,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_nvidias_graphics_count() {
        let folder = tempfile::tempdir().unwrap();
        let roots = Roots { proc: folder.path().to_path_buf(), sys: folder.path().to_path_buf(), ..Roots::default() };
        assert_eq!(gpus_on_bus(&roots), None);
        let devices = [
            ("0000:3b:00.0", "0x10de", "0x030200"),
            ("0000:5e:00.0", "0x10de", "0x030000"),
            // An NVSwitch, and somebody else's graphics.
            ("0000:c1:00.0", "0x10de", "0x068000"),
            ("0000:00:02.0", "0x8086", "0x030000"),
        ];
        for (address, vendor, class) in devices {
            let device = folder.path().join("bus/pci/devices").join(address);
            std::fs::create_dir_all(&device).unwrap();
            std::fs::write(device.join("vendor"), format!("{vendor}\n")).unwrap();
            std::fs::write(device.join("class"), format!("{class}\n")).unwrap();
        }
        let found: Vec<String> = gpus_on_bus(&roots).unwrap().into_iter().collect();
        assert_eq!(found, ["0000:3b:00.0", "0000:5e:00.0"]);
    }

    #[test]
    fn addresses_agree() {
        assert_eq!(kernel_address("00000000:3B:00.0"), "0000:3b:00.0");
        assert_eq!(kernel_address("0000:3B:00.0"), "0000:3b:00.0");
        assert_eq!(kernel_address("00010002:3B:00.0"), "00010002:3b:00.0");
    }
}
